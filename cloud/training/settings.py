"""Settings of a training run: one tree, read from TOML by `vedette train --config`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from shared.bundle import InputSpec
from shared.diffusion.distillation import DistillationSettings
from shared.errors import SettingsError
from shared.preprocessing.video import MIN_CLIP_FRAMES
from shared.settings import Settings
from shared.tables.settings import TableSettings

MIN_SIDE, MAX_SIDE, SIDE_MULTIPLE = 32, 4096, 16  # pixels; limits of the image encoder
MAX_PIXELS = 2048 * 2048  # of an image; a larger one does not fit into a message to the cloud


class DataSettings(Settings):
    """Selection and split of the data."""

    label_column: str = Field(
        "",
        title="Label column",
        description="column of labels, 0 for normal; empty: label, anomaly, y or a similar name",
    )
    time_column: str = Field(
        "", title="Time column", description="column of timestamps, not an input; empty: timestamp or a similar name"
    )
    columns: tuple[str, ...] = Field(
        (), title="Columns", description="features or channels to use, in order; empty: all"
    )
    bad_rows: Literal["refuse", "drop"] = Field(
        "refuse",
        title="Bad rows",
        description="whether to refuse or drop rows or images that are NaN, infinite or unreadable",
    )
    missing: Literal["refuse", "allow"] = Field(
        "refuse",
        title="Missing values",
        description="whether NaN is a missing value, in training and on devices; infinity is always bad",
    )
    mode_column: str = Field(
        "",
        title="Mode column",
        description="column with the number of the operating mode; each mode is calibrated on its own; empty: none",
    )
    categories: Literal["refuse", "one_hot"] = Field(
        "refuse", title="Categories", description="whether a column of text is refused, or is one channel per text"
    )
    category_values: dict[str, tuple[str, ...]] = Field(
        {}, title="Category values", description="texts by column that become channels; empty: those in the data"
    )
    rising: Literal["leave_out", "keep"] = Field(
        "leave_out",
        title="Rising columns",
        description="whether a column that rises or falls in every row, such as an index or a counter, is an input",
    )
    table: TableSettings = Field(
        default_factory=TableSettings, title="Table", description="format of a text table; detected by default"
    )
    decimal_hint: Literal["", ","] = Field(
        "",
        title="Decimal hint",
        description="decimal mark of an earlier table; decides numbers with two readings; empty: none",
    )
    trim_share: float = Field(
        0.0,
        ge=0,
        le=0.3,
        title="Trimmed share",
        description="share of the training part, the least likely, to leave out because it may be anomalous",
    )
    held_out_share: float = Field(
        0.3,
        gt=0.05,
        le=0.6,
        title="Held-out share",
        description="share of the normal data to calibrate on; no network and no screener is trained on it",
    )
    max_train: int = Field(
        20_000, ge=100, title="Max training part", description="samples to train on at most, drawn at random"
    )
    max_held_out: int = Field(
        4_000, ge=100, title="Max held-out part", description="samples to calibrate on at most, drawn at random"
    )

    def for_bundle(self, spec: InputSpec, path: Path) -> Self:
        """Return the settings that read the data at `path` for a bundle with input `spec`.

        The format of the table and the columns of label and time stay; the bundle decides everything else. Unusable
        rows are kept out of the values, so that each one gets its own rejection.
        """
        return type(self)(
            label_column=self.label_column,
            time_column=self.time_column,
            table=self.table,
            decimal_hint="," if spec.decimal == "," else "",
            # The arrays of an .npz file have no column names.
            columns=() if path.suffix.lower() == ".npz" else spec.channels,
            category_values=spec.categories,
            missing="allow" if spec.missing else "refuse",
            bad_rows="drop",
        )


class SeriesSettings(Settings):
    """Windows of a series. 0: chosen from the normal data."""

    window_length: int = Field(0, ge=0, le=2048, title="Window length", description="time points; 0: about one period")
    window_stride: int = Field(
        0, ge=0, le=2048, title="Window stride", description="time points between windows; 0: a quarter of the length"
    )


class ImageSettings(Settings):
    """Size and number of images. Height and width 0: chosen from the sizes of the normal images."""

    height: int = Field(
        0, ge=0, le=MAX_SIDE, title="Height", description="pixels, a multiple of 16; 0: from the images"
    )
    width: int = Field(0, ge=0, le=MAX_SIDE, title="Width", description="pixels, a multiple of 16; 0: from the images")
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=128 * 128,
        le=MAX_PIXELS,
        title="Max pixels",
        description="pixels of a chosen size at most; larger images are shrunk, which is faster on a device",
    )
    feature_dim: int = Field(
        64, ge=4, le=128, title="Feature dimensions", description="values of a patch after whitening"
    )
    examples: int = Field(
        8,
        ge=0,
        le=16,
        title="Examples",
        description="held-out normal images in the bundle's cloud part, for people to compare with; 0: none",
    )
    max_images: int = Field(1000, ge=40, title="Max images", description="good images to use at most, drawn at random")
    patches: int = Field(
        20_000, ge=1000, title="Patches", description="patches of good images to distil the head on, drawn at random"
    )

    @model_validator(mode="after")
    def _has_both_sides(self) -> Self:
        if bool(self.height) != bool(self.width):
            raise ValueError("height and width: set both, or neither")
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"height and width: at most {MAX_PIXELS} pixels together, as 2048 x 2048")
        return self

    @field_validator("height", "width")
    @classmethod
    def _is_chosen_or_fits(cls, side: int) -> int:
        if side and (side < MIN_SIDE or side % SIDE_MULTIPLE):
            raise ValueError(f"must be 0, or a multiple of {SIDE_MULTIPLE} from {MIN_SIDE} on")
        return side


class VideoSettings(Settings):
    """Size and number of clips. Height and width 0: chosen from the size of the videos."""

    height: int = Field(0, ge=0, le=1024, title="Height", description="pixels, a multiple of 32; 0: from the videos")
    width: int = Field(0, ge=0, le=1024, title="Width", description="pixels, a multiple of 32; 0: from the videos")
    clip_frames: int = Field(MIN_CLIP_FRAMES, ge=MIN_CLIP_FRAMES, le=16, title="Clip", description="frames of a clip")
    frame_interval_s: float = Field(
        1.0, gt=0, le=60, title="Frame interval", description="seconds between the frames of a clip"
    )
    max_clips: int = Field(
        1500, ge=40, title="Max clips", description="normal clips to train on at most, evenly spread"
    )
    max_held_out: int = Field(
        1000, ge=40, title="Max held-out clips", description="normal clips to calibrate on at most"
    )
    max_test: int = Field(
        2000, ge=10, title="Max labelled clips", description="labelled clips to measure on at most, evenly spread"
    )
    relit_share: float = Field(
        0.5, ge=0, le=2, title="Relit share", description="copies in other light to add, per training clip"
    )


class QuantisationSettings(Settings):
    """Quantisation of the INT8 artefacts."""

    samples: int = Field(300, ge=20, le=5000, title="Samples", description="graph inputs that set the INT8 ranges")
    images: int = Field(64, ge=10, le=1000, title="Images", description="images or clips that set the INT8 ranges")


class ToleranceSettings(Settings):
    """Tolerances of the parity gate: limits on the difference between an artefact and the FP32 torch model."""

    fp32_score_difference: float = Field(
        1e-3,
        gt=0,
        title="FP32 score difference",
        description="largest difference, in standard deviations of the held-out scores",
    )
    rank_correlation: float = Field(
        0.95, ge=0, le=1, title="Rank correlation", description="smallest Spearman's rho of the scores"
    )
    label_agreement: float = Field(
        0.96,
        ge=0,
        le=1,
        title="Label agreement",
        description="smallest share of samples on the same side of the threshold",
    )
    auroc_difference: float = Field(
        0.02, ge=0, le=1, title="AUROC difference", description="largest loss of AUROC, when labels exist"
    )
    operating_rate: float = Field(
        0.05, gt=0, lt=0.5, title="Operating point", description="false-alarm rate at which labels are compared"
    )


class JudgementSettings(Settings):
    """Demands that the judgement at the end of training holds the bundle against. No network depends on them."""

    false_alarms_per_day: float = Field(
        1.0, ge=0, le=1e6, title="False alarms", description="local alarms a source may raise in a day of normal data"
    )
    samples_per_day: float = Field(
        0.0,
        ge=0,
        le=1e9,
        title="Samples a day",
        description="samples that a source gives in a day; 0: from the times of a series, else 1440, one a minute",
    )
    max_copied_share: float = Field(
        0.1, ge=0, le=1, title="Copies", description="share of exact copies among normal samples, above it is a warning"
    )
    verdict_rate: float = Field(
        0.01,
        gt=0,
        lt=1,
        title="Verdict rate",
        description="false-alarm rate of the service's verdicts, as false_alarm_rate of cloud.toml",
    )
    forward_p_value: float = Field(
        0.05, gt=0, le=1, title="Forward", description="p-value up to which devices forward, as in router of edge.toml"
    )
    audit_share: float = Field(
        0.01, ge=0, le=1, title="Audit", description="share of accepted samples that devices forward at random"
    )


class TrainingSettings(Settings):
    """Settings of a training run."""

    name: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9_-]{0,63})?$",
        title="Name",
        description="name of the bundle: a-z, 0-9, - and _; empty: from the data's name",
    )
    version: int = Field(
        0, ge=0, title="Version", description="version of the bundle; 0: the next free one, 1 if none is taken"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, title="Seed", description="seed of all random draws")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", title="Device", description="device to fit the head and the analyzers on"
    )
    effort: float = Field(
        1.0,
        gt=0,
        le=1,
        title="Effort",
        description="factor on training steps and on corrupted copies of images",
    )
    hidden: tuple[int, ...] = Field(
        (),
        title="Hidden layers",
        description="widths of the head's layers; empty: 256, 384, 256; for images and video 256, 256",
    )
    analyzers: tuple[str, ...] = Field(
        (), title="Analyzers", description="analyzers to fit; empty: the defaults of the modality"
    )
    fused: tuple[str, ...] = Field(
        (),
        title="Fused",
        description="analyzers whose opinions make the verdict; empty: all but the baselines",
    )
    data: DataSettings = Field(default_factory=DataSettings, title="Data")
    series: SeriesSettings = Field(default_factory=SeriesSettings, title="Series")
    image: ImageSettings = Field(default_factory=ImageSettings, title="Images")
    video: VideoSettings = Field(default_factory=VideoSettings, title="Video")
    head: DistillationSettings | None = Field(
        None, title="Head", description="distillation of the head; empty: the defaults of the modality"
    )
    quantisation: QuantisationSettings = Field(default_factory=QuantisationSettings, title="Quantisation")
    tolerances: ToleranceSettings = Field(default_factory=ToleranceSettings, title="Tolerances")
    judgement: JudgementSettings = Field(default_factory=JudgementSettings, title="Judgement")

    def distillation(self, default: DistillationSettings) -> DistillationSettings:
        """Return the settings of the head's distillation: as set, else `default`, shortened by `effort`."""
        return (self.head if self.head is not None else default).shortened(self.effort)

    def changed(self, options: Mapping[str, Any]) -> Self:
        """Return these settings with the options of a command line; None, empty texts and false change nothing.

        `options`: values by key, with a mapping per table. A number has the meaning that it has in a file,
        zero as well. Raises SettingsError for a value that is not allowed.
        """
        values = _changed(self.model_dump(), options)
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise SettingsError(f"{key}: {problem['msg']} (is {problem['input']!r}).") from None


def _changed(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with the options that are given, in nested tables as well."""
    changed = dict(values)
    for key, option in options.items():
        if isinstance(option, Mapping):
            changed[key] = _changed(changed[key], option)
        elif option is not None and option != "" and option is not False:
            changed[key] = option
    return changed
