"""Request of a training job: source of its samples, and its settings."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.modality import Modality

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
ID_PATTERN = r"^[0-9a-f]{16}$"
MAX_COLUMNS = 512
MAX_DEVICES = 200


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StoredSelection(_Strict):
    """Judged samples of one device, or of the devices of a group, that were screened by a bundle of `bundle_name`."""

    device_id: str = Field(default="", max_length=64)
    group: str = Field(default="", max_length=64)
    bundle_name: str = Field(pattern=NAME_PATTERN)
    days: float = Field(default=30.0, gt=0, le=3650, description="Age of the oldest verdict, in days.")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if bool(self.device_id) == bool(self.group):
            raise ValueError("give a device_id or a group")
        return self


class JobData(_Strict):
    """Where the samples of a job come from: the files of an upload, or the store."""

    upload_id: str | None = Field(default=None, pattern=ID_PATTERN)
    stored: StoredSelection | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.upload_id is None) == (self.stored is None):
            raise ValueError("give upload_id or stored")
        return self


class JobOptions(_Strict):
    """Settings of a job. Names and meanings are those of `vedette train`; a missing value has its default there."""

    name: str = Field(pattern=NAME_PATTERN, description="Name of the bundle; an existing one gets its next version.")
    modality: Modality | None = Field(default=None, description="Null: found in the data.")
    effort: float | Literal["first-look"] = Field(
        default=1.0, description='Share of the training steps, above 0 and up to 1, or "first-look".'
    )
    false_alarms_per_day: float = Field(default=1.0, ge=0, le=1e6)
    samples_per_day: float = Field(default=0.0, ge=0, le=1e9, description="0: from the times of a series, or 1440.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    label_column: str = Field(default="", max_length=256)
    time_column: str = Field(default="", max_length=256)
    mode_column: str = Field(default="", max_length=256)
    columns: tuple[str, ...] = Field(default=(), max_length=MAX_COLUMNS, description="Inputs; empty: all others.")
    drop_bad_rows: bool = False
    allow_missing: bool = False
    one_hot: bool = False
    trim_share: float = Field(default=0.0, ge=0, le=0.3)
    window_length: int = Field(default=0, ge=0, le=2048)
    window_stride: int = Field(default=0, ge=0, le=2048)
    image_size: int = Field(default=0, ge=0, le=2048)

    @model_validator(mode="after")
    def _effort_is_a_share(self) -> Self:
        if not isinstance(self.effort, str) and not 0 < self.effort <= 1:
            raise ValueError("effort: give a number above 0 and up to 1, or first-look")
        return self


class JobRequest(_Strict):
    """A job to start."""

    data: JobData
    options: JobOptions
