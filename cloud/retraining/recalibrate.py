"""Recalibration of a bundle with labelled false alarms: the same networks, another calibration of the fused statistic.

Labelled false alarms are normal samples from the tail, and stored because they were suspicious. Their share of all
normal samples of the stream is estimated by inverse probability weights (Horvitz & Thompson, "A generalization of
sampling without replacement from a finite universe", JASA 1952): a forwarded sample counts once, an audit one over the
share of audits. The calibration gets that share of its own size as quantiles of their scores, at most MAX_SHARE.
A bundle is recalibrated once: its calibration would get the same false alarms again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.serving.analysis import FUSED, load_analysis
from cloud.store.training_samples import ChosenSamples
from cloud.training.settings import TrainingSettings
from cloud.training.stages import now
from shared.bundle import FUSION_FILE, Bundle, Manifest, npz_bytes, sign
from shared.calibration_modes import CalibrationByMode
from shared.errors import DataError
from shared.samples import Values

MAX_SHARE = 0.25  # of the held-out scores


def stream_normals(learned: ChosenSamples, audit_share: float) -> float:
    """Return the estimated number of normal samples of the stream that the stored ones stand for."""
    once = len(learned.judged_normal) + len(learned.false_alarms)
    return once + (len(learned.audits) / audit_share if audit_share > 0 else 0.0)


def recalibrated(
    bundle: Bundle,
    false_alarms: Sequence[Values],
    normals: float,
    *,
    settings: TrainingSettings,
    signing_key: Ed25519PrivateKey,
    device: str,
) -> Bundle:
    """Return the next version of a bundle, whose fused calibration holds its share of labelled false alarms.

    `normals`: number of normal samples of the stream, the false alarms among them. Raises DataError where their share
    is below the resolution of the calibration, or the bundle is recalibrated already or has operating modes.
    """
    manifest = bundle.manifest
    if (earlier := manifest.training.get("recalibration")) is not None:
        parent = earlier.get("parent_bundle_id", manifest.parent_bundle_id)
        raise DataError(
            f"Bundle {manifest.bundle_id} is recalibrated already: leave out --calibrate-only, or make the bundle "
            f"before it current first with vedette cloud rollout {manifest.name} --to {parent}."
        )
    analysis = load_analysis(bundle, device, settings.judgement.verdict_rate)
    known = analysis.fusion.fused
    if known.by_mode or known.rest is None:
        raise DataError("A bundle with operating modes cannot be recalibrated: leave out --calibrate-only.")
    scores, held_out = analysis.score(list(false_alarms))[FUSED], known.rest.scores
    count = min(round(len(held_out) * len(scores) / normals), int(MAX_SHARE * len(held_out)))
    if not count:
        raise DataError(
            f"{len(scores)} labelled false alarms of about {normals:,.0f} normal samples are less than 1 of the "
            f"{len(held_out)} calibration scores: nothing to recalibrate. Run the command without --calibrate-only."
        )
    added = np.quantile(scores, (np.arange(count) + 0.5) / count)
    fused = CalibrationByMode.fit(np.concatenate([held_out, added]))
    fusion = dataclasses.replace(analysis.fusion, fused=fused)
    facts: dict[str, Any] = {
        "false_alarms": len(scores),
        "stream_normals": round(normals),
        "added_scores": count,
        "parent_bundle_id": manifest.bundle_id,
    }
    updated = manifest.model_copy(
        update={
            "version": settings.version,
            "created_at": now(),
            "parent_bundle_id": manifest.bundle_id,
            "training": {**_facts_to_keep(manifest), "recalibration": facts},
        }
    )
    return sign(updated, {**bundle.files, FUSION_FILE: npz_bytes(fusion.to_arrays())}, signing_key)


def _facts_to_keep(manifest: Manifest) -> dict[str, Any]:
    """Return the facts about the training without its time and its judgement, whose fused figures hold no longer.

    The resolution of the devices' calibrations stays: they are the same, and devices read the rate of the source in it.
    """
    facts = {key: value for key, value in manifest.training.items() if key not in ("seconds", "judgement")}
    resolution = manifest.training.get("judgement", {}).get("figures", {}).get("resolution")
    return facts | ({"judgement": {"figures": {"resolution": resolution}}} if resolution is not None else {})
