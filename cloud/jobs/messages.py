"""Messages between the service and the processes that inspect uploads and train: files and lines of JSON."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from cloud.jobs.options import MAX_COLUMNS, JobData, JobOptions
from cloud.settings import StoreLocation

MAX_LINE_BYTES = 2**20
# Bounds of an inspection: longer texts are cut, so that at its largest it has less than MAX_INSPECTION_BYTES.
MAX_INSPECTION_BYTES = 2**20
MAX_NAME, MAX_NOTES, MAX_NOTE, MAX_PROBLEM = 256, 50, 400, 2000
HEAD_ROWS, HEAD_COLUMNS, MAX_CELL, MAX_PREVIEWS = 5, 64, 40, 12


def _cut(limit: int) -> AfterValidator:
    return AfterValidator(lambda text: text if len(text) <= limit else f"{text[: limit - 1]}…")


def _fewer_notes(notes: tuple[str, ...]) -> tuple[str, ...]:
    if len(notes) <= MAX_NOTES:
        return notes
    kept = notes[: MAX_NOTES - 1]
    return (*kept, f"{len(notes) - len(kept)} more notes are left out")


def _below(data: str) -> str:
    parts = Path(data).parts
    if data and (parts[0] not in ("files", "content") or ".." in parts):
        raise ValueError("not a path below the uploaded files")
    return data


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingStart(_Message):
    """Start message of a training process.

    `folder`: for its files, `upload`: uploaded files, `location`: store of the samples, None with an upload.
    """

    job_id: str
    data: JobData
    options: JobOptions
    sites: tuple[str, ...]
    version: int
    folder: Path
    upload: Path | None
    location: StoreLocation | None
    signing_key: Path
    cores: int
    parent_pid: int


class InspectionStart(_Message):
    """Start message of an inspection. `files`: as sent, `content`: to unpack to; `free_bytes` of the disk stay free."""

    files: Path
    content: Path
    previews: Path
    max_bytes: int
    max_files: int
    free_bytes: int
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

    name: Annotated[str, _cut(MAX_NAME)]
    type: Literal["number", "text"]
    role: Literal["time", "label", "input", "unused"]


_Note = Annotated[str, _cut(MAX_NOTE)]
_Row = Annotated[tuple[Annotated[str, _cut(MAX_CELL)], ...], Field(max_length=HEAD_COLUMNS)]


class Inspection(_Message):
    """Contents of an upload. `problem`: reason why it cannot be trained on as it is; empty otherwise.

    `data`: path below the folder of the upload to train on, a file or a folder. `normals`, `anomalies`: numbers of rows
    or images as far as they are known. `previews`: files of small pictures.
    """

    problem: Annotated[str, _cut(MAX_PROBLEM)] = ""
    modality: Literal["tabular", "series", "image", "video", ""] = ""
    data: Annotated[str, Field(max_length=1024), AfterValidator(_below)] = ""
    rows: int = 0
    columns: tuple[Column, ...] = Field(default=(), max_length=MAX_COLUMNS)
    head: tuple[_Row, ...] = Field(
        default=(), max_length=HEAD_ROWS, description="First cells of the columns, row by row."
    )
    normals: int = 0
    anomalies: int = 0
    notes: Annotated[tuple[_Note, ...], AfterValidator(_fewer_notes)] = ()
    previews: tuple[Annotated[str, Field(pattern=r"^[0-9]{1,2}\.jpg$")], ...] = Field(
        default=(), max_length=MAX_PREVIEWS
    )
