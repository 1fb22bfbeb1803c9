"""Figures of a report on one bundle."""

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class MethodReport(_Frozen):
    """One method of a bundle. `kind`: "fused", "member", "baseline" or "screener".

    `weight`: share of a member in the fused p-value. `auroc`: on the labelled part of the training data, if there was
    one. `below`: name of a baseline with a higher AUROC, of members and the fused verdict.
    """

    name: str
    kind: str
    weight: float | None = None
    auroc: float | None = None
    below: str = ""


class SyntheticAnomalies(_Frozen):
    """Corrupted copies of held-out normals of one kind, and how many of them were found at the asked rate."""

    kind: str
    copies: int
    screener: int
    fused: int


class ArtefactReport(_Frozen):
    """One screener graph: parity with the FP32 model, and the resolution of its calibration.

    `held_out`: normals of its smallest calibration; `rarest_p_value`: the smallest one that they resolve, 1 / (n + 1).
    """

    name: str
    engine: str
    precision: str
    is_preferred: bool
    graph_bytes: int
    rank_correlation: float | None
    label_agreement: float | None
    layers_in_float: int | None
    layers: int | None
    held_out: int | None
    rarest_p_value: float | None
    has_tail: bool | None
    modes: int


class Resolution(_Frozen):
    """False alarms that the calibration can keep. `alarms_per_day`: at the rarest p-value that it resolves."""

    held_out: int
    separate: int
    rarest_p_value: float
    samples_per_day: float
    rate_is_assumed: bool
    asked_alarms_per_day: float
    alarms_per_day: float
    is_resolved: bool


class Recalibration(_Frozen):
    """Recalibration that made a bundle from its parent.

    `false_alarms`: labelled ones; `stream_normals`: estimated number of normal samples that they are a share of;
    `added_scores`: scores that the fused calibration got.
    """

    false_alarms: int
    stream_normals: int
    added_scores: int


class GroupRuns(_Frozen):
    """Devices of a group that run the bundle with an artefact; `reporting` of them sent a heartbeat lately."""

    group: str
    artefact: str
    devices: int
    reporting: int


class BundleReport(_Frozen):
    """Report on one bundle; `problems` are sentences that each name a figure which cannot be trusted, or a fault."""

    bundle_id: str
    name: str
    version: int
    modality: str
    created_at: str
    published_at_s: float
    published_by: str
    parent_bundle_id: str
    is_current: bool
    groups: tuple[str, ...] | None
    trained_on: str
    training_seconds: float | None
    recalibration: Recalibration | None
    train_samples: int | None
    held_out_samples: int | None
    labelled_samples: int | None
    archive_bytes: int
    edge_archive_bytes: int
    signer: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    opinions: tuple[MethodReport, ...]
    synthetic: tuple[SyntheticAnomalies, ...]
    artefacts: tuple[ArtefactReport, ...]
    resolution: Resolution | None
    runs: tuple[GroupRuns, ...]
