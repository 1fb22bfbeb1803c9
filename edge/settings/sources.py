"""Settings of sources: one table `[[sources]]` of `edge.toml` each, whose `kind` decides its keys."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from shared.broker_settings import BrokerSettings
from shared.settings import Settings
from shared.tables.settings import TableSettings

SOURCE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
BUNDLE_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class SourceBase(Settings):
    """Settings of every source: name, rate and bundle."""

    id: str = Field(pattern=SOURCE_ID_PATTERN, title="Name", description="names the source in logs and verdicts")
    rate_per_s: float = Field(
        default=0.0, ge=0, title="Rate", description="samples (rows, windows, images) a second; 0: as fast as possible"
    )
    stop_after_s: float = Field(default=0.0, ge=0, title="Stop after", description="seconds; 0: never")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        title="Batch size",
        description="largest number of samples screened at once; default 8 images, 4 clips, or 1024 to 4096 rows or "
        "windows. A source with a rate takes no more than come within max_batch_age_ms",
    )
    max_batch_age_ms: float = Field(
        default=100.0, gt=0, title="Batch age", description="a batch never waits longer than this for more samples"
    )
    bundle: Path | None = Field(default=None, title="Bundle", description="path of a bundle archive to start with")
    bundle_name: str | None = Field(
        default=None,
        pattern=BUNDLE_NAME_PATTERN,
        title="Bundle name",
        description="the bundle to follow in the cloud's registry: fetched, and swapped when a new version is out",
    )
    artefact: str = Field(
        default="auto", title="Artefact", description='"auto": the fastest here, or a name such as "int8_openvino"'
    )

    @model_validator(mode="after")
    def _has_a_bundle(self) -> Self:
        if self.bundle is None and self.bundle_name is None:
            raise ValueError("set bundle (a path) or bundle_name (to fetch it from the cloud)")
        return self

    @property
    def steady_rate_per_s(self) -> float:
        """Samples per second if the source keeps that rate; 0 if it must be measured."""
        return 0.0

    def batch_size_for(self, usual: int) -> int:
        """Return the largest batch size: as set, or the `usual` one of the bundle.

        A source with a rate gets no more than the samples that come within `max_batch_age_ms`. The engine is chosen
        and prepared for this size.
        """
        size = self.batch_size or usual
        if self.rate_per_s > 0:
            return max(1, int(min(size, self.rate_per_s * self.max_batch_age_ms / 1000)))
        return size


class ReplaySettings(SourceBase):
    """Readings in a file, replayed."""

    kind: Literal["replay"] = Field(title="Kind", description="a CSV, Parquet or NPZ file, replayed")
    path: Path = Field(title="Path", description="the file to read")
    loop: bool = Field(default=False, title="Loop", description="start again at the end")
    array: str | None = Field(
        default=None, title="Array", description="key inside an NPZ file; default the first of X, test, values"
    )
    table: TableSettings = Field(
        default_factory=TableSettings, title="Table", description="format of a text table; detected by default"
    )

    @property
    def steady_rate_per_s(self) -> float:
        """Rate of the replay, which it keeps."""
        return self.rate_per_s


class TailSettings(SourceBase):
    """A CSV file that grows."""

    kind: Literal["tail"] = Field(title="Kind", description="a CSV file to which another program adds rows")
    path: Path = Field(title="Path", description="the file; it may be rotated, or come later")
    from_start: bool = Field(
        default=True, title="From start", description="at the first run, also read rows already in the file"
    )
    poll_s: float = Field(default=0.5, gt=0, le=60, title="Interval", description="seconds between two reads")
    silent_after_s: float = Field(
        default=0.0, ge=0, title="Silent", description="seconds without a new row: the source is unwell; 0: never"
    )
    table: TableSettings = Field(
        default_factory=TableSettings, title="Table", description="format of a text table; detected by default"
    )


class ImageFolderSettings(SourceBase):
    """A folder of image files."""

    kind: Literal["images"] = Field(title="Kind", description="a folder of images")
    path: Path = Field(title="Path", description="the folder to read, with all below it")
    loop: bool = Field(default=False, title="Loop", description="start again at the end")
    watch: bool = Field(default=False, title="Watch", description="wait for new files, each screened once")
    after: Literal["keep", "delete", "move"] = Field(
        default="keep", title="After", description="what to do with a watched file after screening"
    )
    done: Path | None = Field(
        default=None, title="Done", description="the folder to move screened files to, on the same file system"
    )
    settle_s: float = Field(
        default=1.0, gt=0, le=600, title="Settle", description="seconds a new file must not change to be whole"
    )
    poll_s: float = Field(default=0.5, gt=0, le=60, title="Interval", description="seconds between two reads")
    silent_after_s: float = Field(
        default=0.0, ge=0, title="Silent", description="seconds without a new file: the source is unwell; 0: never"
    )

    @property
    def steady_rate_per_s(self) -> float:
        """Rate of a folder that is read once; 0 for a watched one."""
        return 0.0 if self.watch else self.rate_per_s

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.watch and self.loop:
            raise ValueError("watch and loop: set one of them")
        if not self.watch and self.after != "keep":
            raise ValueError(f"after = {self.after!r}: only of a folder that is watched; set watch = true")
        if (self.after == "move") != (self.done is not None):
            raise ValueError('after = "move" and done, the folder to move files to, go together')
        if self.done is not None and self.done.absolute().is_relative_to(self.path.absolute()):
            raise ValueError(f"done: a folder inside {self.path} is watched, too: choose one outside")
        return self


class Rectangle(Settings):
    """A part of a frame, in pixels of the camera's picture."""

    left: NonNegativeInt = Field(title="Left", description="pixels from the left edge")
    top: NonNegativeInt = Field(title="Top", description="pixels from the upper edge")
    width: PositiveInt = Field(title="Width", description="pixels")
    height: PositiveInt = Field(title="Height", description="pixels")


class CameraSettings(SourceBase):
    """A camera's stream, or a video file."""

    kind: Literal["camera"] = Field(title="Kind", description="a stream (RTSP, HTTP, TCP, UDP), a USB camera or a file")
    url: str = Field(
        min_length=1,
        title="Address",
        description="such as rtsp://user:secret@camera/stream, /dev/video0, or the path of a video file",
    )
    loop: bool = Field(default=False, title="Loop", description="start a file again at its end")
    options: dict[str, str] = Field(
        default={},
        title="Options",
        description='FFmpeg options of the input, such as {rtsp_transport = "udp"}; RTSP goes over TCP by default',
    )
    frame_stride: int = Field(default=1, ge=1, title="Stride", description="screen every n-th frame")
    region: Rectangle | None = Field(default=None, title="Region", description="the part of the picture to screen")
    masks: tuple[Rectangle, ...] = Field(
        default=(), title="Masks", description="parts of the picture that are never looked at: painted grey"
    )
    motion_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        title="Motion gate",
        description="share of the picture that has to change for a frame to be screened; 0: all frames are",
    )
    still_after_s: float = Field(
        default=10.0, gt=0, title="Still", description="seconds after which a frame without motion is screened too"
    )
    open_timeout_s: float = Field(default=10.0, gt=0, le=600, title="Open", description="seconds a connection may take")
    stall_timeout_s: float = Field(
        default=10.0, gt=0, le=600, title="Stall", description="seconds without a frame: connect again"
    )
    frozen_after_s: float = Field(
        default=30.0, gt=0, title="Frozen", description="seconds of one and the same picture: the camera is unwell"
    )
    reconnect_max_s: float = Field(
        default=30.0, gt=0, title="Longest wait", description="seconds between two attempts; the first comes after 0.5"
    )


class ChannelSettings(Settings):
    """Where the readings of one channel of the bundle are found."""

    topic: str = Field(default="", title="Topic", description="MQTT topic filter; default the source's")
    path: str = Field(
        default="", title="Path", description="JMESPath of the value in a record; default the channel's name as a key"
    )
    quality_path: str = Field(default="", title="Quality", description="JMESPath of its quality; default the source's")
    name: str = Field(
        default="", title="Name", description="of the channel in records that name theirs; default the bundle's name"
    )


class ReadingsBase(SourceBase):
    """Settings of sources of readings: the fields of channels, and how readings become rows."""

    channels: dict[str, ChannelSettings] = Field(
        default={}, title="Channels", description="by the bundle's name of each; those not named are found by theirs"
    )
    records_path: str = Field(
        default="",
        title="Records",
        description="JMESPath of the list of records in a message, such as values or devices[].readings[]; default the "
        "message itself, a record or a list of them",
    )
    name_path: str = Field(
        default="",
        title="Name of the channel",
        description="JMESPath of the channel's name in a record that holds one value of one channel",
    )
    value_path: str = Field(
        default="value", title="Value", description="JMESPath of the value in a record with name_path"
    )
    senml: bool = Field(
        default=False, title="SenML", description="messages are SenML packs (RFC 8428): names, times and values are set"
    )
    time_path: str = Field(
        default="", title="Time", description="JMESPath of a record's time; default that of the message"
    )
    message_time_path: str = Field(
        default="",
        title="Message time",
        description="JMESPath, in the message, of the time of records without one; default the moment it arrives",
    )
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        default="auto", title="Time unit", description="of numbers; auto: by their size. Texts are ISO 8601"
    )
    quality_path: str = Field(
        default="", title="Quality", description="JMESPath of a record's quality; values of any but good are missing"
    )
    good_quality: tuple[str | int | float | bool, ...] = Field(
        default=("good", 192), title="Good", description="values of quality_path that mark good values"
    )
    interval_s: float = Field(
        default=0.0,
        ge=0,
        le=86400,
        title="Interval",
        description="seconds from row to row, as in the data trained on; 0: each record is a row",
    )
    hold_s: float = Field(
        default=0.0, ge=0, title="Hold", description="seconds a value stays valid, of sensors that report changes only"
    )
    lateness_s: float = Field(
        default=0.5, ge=0, le=3600, title="Lateness", description="seconds a row waits for readings that come late"
    )
    silent_after_s: float = Field(
        default=60.0, gt=0, title="Silent", description="seconds without a reading of a channel: the source is unwell"
    )
    table: TableSettings = Field(
        default_factory=TableSettings, title="Table", description="format of a text table; detected by default"
    )

    @property
    def names_channels(self) -> bool:
        """Whether each record holds one value and the name of its channel."""
        return self.senml or bool(self.name_path)

    @property
    def records_are_rows(self) -> bool:
        """Whether each record is a row of its own, complete with its own values."""
        return self.interval_s <= 0 and self.hold_s <= 0 and not self.names_channels

    @model_validator(mode="after")
    def _records_fit_together(self) -> Self:
        if self.senml and (self.records_path or self.name_path or self.time_path or self.message_time_path):
            raise ValueError("senml sets names, times and values: leave out records_path, name_path and the time paths")
        named = [channel for channel, own in self.channels.items() if own.name]
        if named and not self.names_channels:
            raise ValueError(f"channels.{named[0]}.name: set name_path, the place of the channel's name in a record")
        names = [own.name or channel for channel, own in self.channels.items()]
        if self.names_channels and len(set(names)) != len(names):
            raise ValueError("two channels have the same name: give each its own")
        return self


class StdinSettings(ReadingsBase):
    """Lines on the standard input."""

    kind: Literal["stdin"] = Field(title="Kind", description="lines that another program writes")
    format: Literal["json", "csv"] = Field(
        default="json", title="Format", description="of a line; csv begins with a header line"
    )


class MqttSettings(ReadingsBase, BrokerSettings):
    """Messages of an MQTT broker."""

    kind: Literal["mqtt"] = Field(title="Kind", description="messages of an MQTT broker")
    topic: str = Field(default="", title="Topic", description="topic filter of channels without one of their own")
    session_expiry_s: int = Field(
        default=86400,
        ge=0,
        le=2**32 - 2,
        title="Session",
        description="seconds the broker keeps messages for a device that is away (MQTT 5)",
    )

    @model_validator(mode="after")
    def _has_topics(self) -> Self:
        if not self.topic and not any(channel.topic for channel in self.channels.values()):
            raise ValueError("set topic, or the topic of each channel under channels")
        return self


class PluginSettings(SourceBase):
    """A source that another package brings."""

    kind: Literal["plugin"] = Field(title="Kind", description="a source of another package")
    plugin: str = Field(min_length=1, title="Plug-in", description='name of an entry point in group "vedette.sources"')
    options: dict[str, Any] = Field(default={}, title="Options", description="settings of the plug-in")


SourceSettings: TypeAlias = Annotated[
    ReplaySettings
    | TailSettings
    | ImageFolderSettings
    | CameraSettings
    | MqttSettings
    | StdinSettings
    | PluginSettings,
    Field(discriminator="kind"),
]
