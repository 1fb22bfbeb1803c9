"""Messages between the service and the processes that inspect uploads and train: files and lines of JSON."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cloud.jobs.options import JobData, JobOptions
from cloud.settings import StoreLocation

MAX_LINE_BYTES = 2**20


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingStart(_Message):
    """Start message of a training process. `folder`: for its files, `upload`: folder of the uploaded files."""

    job_id: str
    data: JobData
    options: JobOptions
    sites: tuple[str, ...]
    version: int
    folder: Path
    upload: Path | None
    location: StoreLocation
    signing_key: Path
    cores: int
    parent_pid: int


class InspectionStart(_Message):
    """Start message of an inspection. `files`: as sent, `content`: to unpack to."""

    files: Path
    content: Path
    previews: Path
    max_bytes: int
    max_files: int
    max_pixels: int
    parent_pid: int


class Progressed(_Message):
    """A stage, the share of it that is done, and its remaining seconds."""

    kind: Literal["progress"] = "progress"
    stage: str
    share: float
    remaining_s: float | None = None


class Logged(_Message):
    """A line for people."""

    kind: Literal["log"] = "log"
    text: str


class Finished(_Message):
    """The result; the process ends with it."""

    kind: Literal["result"] = "result"
    result: dict[str, Any]


class Refused(_Message):
    """A reason that another attempt would not change, such as data that cannot be used."""

    kind: Literal["refused"] = "refused"
    reason: str


JobMessage = Progressed | Logged | Finished | Refused
_ADAPTER: TypeAdapter[JobMessage] = TypeAdapter(Progressed | Logged | Finished | Refused)


def parsed(line: bytes) -> JobMessage:
    """Return the message in a line; raises ValueError for any other text."""
    return _ADAPTER.validate_json(line)


class Column(_Message):
    """A column of a table, and its role: time, label, input, or unused."""

    name: str
    type: Literal["number", "text"]
    role: Literal["time", "label", "input", "unused"]


class Inspection(_Message):
    """Contents of an upload. `problem`: reason why it cannot be trained on as it is; empty otherwise.

    `data`: path below the folder of the upload to train on, a file or a folder. `normals`, `anomalies`: numbers of rows
    or images as far as they are known. `previews`: files of small pictures.
    """

    problem: str = ""
    modality: Literal["tabular", "series", "image", "video", ""] = ""
    data: str = ""
    rows: int = 0
    columns: tuple[Column, ...] = Field(default=())
    head: tuple[tuple[str, ...], ...] = Field(default=(), description="First cells of the columns, row by row.")
    normals: int = 0
    anomalies: int = 0
    notes: tuple[str, ...] = ()
    previews: tuple[str, ...] = ()
