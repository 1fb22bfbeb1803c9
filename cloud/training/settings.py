"""All that can be set of a training run: one tree, read from TOML by `vedette train --config`."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from shared.diffusion.distillation import DistillationSettings
from shared.errors import SettingsError
from shared.preprocessing.video import MIN_CLIP_FRAMES
from shared.settings import Settings
from shared.tables.settings import TableSettings

MIN_SIDE, MAX_SIDE, SIDE_MULTIPLE = 32, 4096, 16  # pixels; what the image encoder takes
MAX_PIXELS = 2048 * 2048  # of an image: larger ones would not fit into a message to the cloud


class DataSettings(Settings):
    """Which part of the data is used, and how it is split."""

    label_column: str = Field(
        "", title="Label column", description="0 normal, anything else anomalous; empty: label, anomaly, y and the like"
    )
    time_column: str = Field(
        "", title="Time column", description="left out of the inputs; empty: timestamp and the like"
    )
    columns: tuple[str, ...] = Field(
        (), title="Columns", description="features or channels to use, in order; empty: all"
    )
    bad_rows: Literal["refuse", "drop"] = Field(
        "refuse", title="Bad rows", description="what to do with rows or images that are NaN, infinite or unreadable"
    )
    missing: Literal["refuse", "allow"] = Field(
        "refuse",
        title="Missing values",
        description="whether NaN is a missing value, to be carried along as such; an infinite one is always bad",
    )
    mode_column: str = Field(
        "",
        title="Mode column",
        description="a number for each operating mode, which is then calibrated on its own; empty: none",
    )
    categories: Literal["refuse", "one_hot"] = Field(
        "refuse", title="Categories", description="whether a column of text is refused, or is one channel per text"
    )
    category_values: dict[str, tuple[str, ...]] = Field(
        {}, title="Category values", description="texts by column that become channels; empty: those in the data"
    )
    table: TableSettings = Field(
        default_factory=TableSettings, title="Table", description="format of a text table; detected by default"
    )
    trim_share: float = Field(
        0.0,
        ge=0,
        le=0.3,
        title="Trimmed share",
        description="of the normal data to train on, the least likely of it: left out, since it may be anomalous",
    )
    held_out_share: float = Field(
        0.3,
        gt=0.05,
        le=0.6,
        title="Held-out share",
        description="of the normal data, for calibration; no network and no screener is trained on it",
    )
    max_train: int = Field(20_000, ge=100, title="Largest training part", description="samples; drawn at random beyond")
    max_held_out: int = Field(
        4_000, ge=100, title="Largest held-out part", description="samples; drawn at random beyond"
    )


class SeriesSettings(Settings):
    """How a series is cut into windows. 0: chosen from the normal data."""

    window_length: int = Field(0, ge=0, le=2048, title="Window length", description="time points; 0: about one period")
    window_stride: int = Field(
        0, ge=0, le=2048, title="Window stride", description="time points between windows; 0: a quarter of the length"
    )


class ImageSettings(Settings):
    """The images the graph takes. Height and width 0: chosen from the sizes of the normal images."""

    height: int = Field(0, ge=0, le=MAX_SIDE, title="Height", description="pixels, a multiple of 16; 0: as the images")
    width: int = Field(0, ge=0, le=MAX_SIDE, title="Width", description="pixels, a multiple of 16; 0: as the images")
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=128 * 128,
        le=MAX_PIXELS,
        title="Most pixels",
        description="of a graph whose size is chosen: larger images are shrunk, which costs a device less",
    )
    feature_dim: int = Field(64, ge=4, le=128, title="Feature dimensions", description="whitened values a patch")
    max_images: int = Field(1000, ge=40, title="Most images", description="good images used; drawn at random beyond")
    patches: int = Field(
        20_000, ge=1000, title="Patches", description="drawn from the good images to distil the head on"
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
    """The clips the graph takes. 0: chosen from the videos."""

    height: int = Field(0, ge=0, le=1024, title="Height", description="pixels, a multiple of 32; 0: by the videos")
    width: int = Field(0, ge=0, le=1024, title="Width", description="pixels, a multiple of 32; 0: by the videos")
    clip_frames: int = Field(MIN_CLIP_FRAMES, ge=MIN_CLIP_FRAMES, le=16, title="Clip", description="frames of a clip")
    frame_interval_s: float = Field(
        1.0, gt=0, le=60, title="Frame interval", description="seconds between the frames of a clip"
    )
    max_clips: int = Field(1500, ge=40, title="Most clips", description="normal clips trained on, evenly spread")
    max_held_out: int = Field(1000, ge=40, title="Most held-out clips", description="normal clips to calibrate on")
    max_test: int = Field(2000, ge=10, title="Most labelled clips", description="to measure on, evenly spread")
    relit_share: float = Field(
        0.5, ge=0, le=2, title="Relit share", description="copies in other light that are added, per training clip"
    )


class QuantisationSettings(Settings):
    """How the INT8 artefacts are made."""

    samples: int = Field(300, ge=20, le=5000, title="Samples", description="graph inputs that set the INT8 ranges")
    images: int = Field(64, ge=10, le=1000, title="Images", description="the same for images")


class ToleranceSettings(Settings):
    """How far an artefact may be from the FP32 torch model, on held-out data, before the build fails."""

    fp32_score_difference: float = Field(
        1e-3, gt=0, title="FP32 score difference", description="largest, in units of the held-out scores' deviation"
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


class TrainingSettings(Settings):
    """A training run."""

    name: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9_-]{0,63})?$",
        title="Name",
        description="of the bundle: a-z, 0-9, - and _; empty: from the data's name",
    )
    version: int = Field(1, ge=1, title="Version", description="of the bundle")
    seed: int = Field(0, ge=0, le=2**63 - 1, title="Seed", description="of everything random")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", title="Device", description="where the head and the analyzers are fitted"
    )
    effort: float = Field(
        1.0, gt=0, le=1, title="Effort", description="share of the steps of every training: 0.2 for a first look"
    )
    hidden: tuple[int, ...] = Field(
        (), title="Hidden layers", description="widths in the head; empty: 256, 384, 256, and 256, 256 for images"
    )
    analyzers: tuple[str, ...] = Field(
        (), title="Analyzers", description="methods of the cloud; empty: the best of the modality"
    )
    fused: tuple[str, ...] = Field(
        (),
        title="Fused",
        description="of these analyzers those whose opinions make the verdict; empty: all but baselines",
    )
    data: DataSettings = Field(default_factory=DataSettings, title="Data")
    series: SeriesSettings = Field(default_factory=SeriesSettings, title="Series")
    image: ImageSettings = Field(default_factory=ImageSettings, title="Images")
    video: VideoSettings = Field(default_factory=VideoSettings, title="Video")
    head: DistillationSettings | None = Field(
        None, title="Head", description="how it is distilled; empty: fewer steps for rows than for the rest"
    )
    quantisation: QuantisationSettings = Field(default_factory=QuantisationSettings, title="Quantisation")
    tolerances: ToleranceSettings = Field(default_factory=ToleranceSettings, title="Tolerances")

    def distillation(self, default: DistillationSettings) -> DistillationSettings:
        """Return the settings of the head's distillation: as set, else `default`, shortened by `effort`."""
        return (self.head if self.head is not None else default).shortened(self.effort)

    def changed(self, options: Mapping[str, Any]) -> Self:
        """These settings with the options of a command line, of which empty ones change nothing.

        `options` holds values by key, and mappings for the tables. Raises SettingsError for a value not allowed.
        """
        values = self.model_dump()
        for key, option in options.items():
            if isinstance(option, Mapping):
                values[key] |= {inner: value for inner, value in option.items() if value}
            elif option:
                values[key] = option
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise SettingsError(f"{key}: {problem['msg']} (is {problem['input']!r}).") from None
