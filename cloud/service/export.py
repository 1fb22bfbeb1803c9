"""Export of verdicts, labels and payloads of labelled samples: Parquet files in one folder, in bounded memory."""

import contextlib
import io
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import JSON

from cloud.store import Store
from cloud.store.contents import StoredPayload, stored_payload
from cloud.store.export_queries import (
    Exported,
    ExportSelection,
    export_page,
    exported,
    labelled_numbers,
    time_range,
)
from cloud.store.labels import StoredLabel, newest_label
from cloud.store.verdict_columns import COLUMNS, contributions_to_json, opinions_to_json
from cloud.store.verdict_keys import VerdictKey
from shared.errors import MissingExtraError, SampleRejected, SettingsError
from shared.files import write_durably
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

PAGE_SIZE = 2000
FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.0  # the years 1 to 9999
UNFINISHED = ".unfinished"
VERDICTS_FILE, LABELS_FILE, PAYLOADS_FOLDER = "verdicts.parquet", "labels.parquet", "payloads"
_SUFFIXES = {
    sample_pb2.PAYLOAD_ENCODING_PNG: ".png",
    sample_pb2.PAYLOAD_ENCODING_JPEG: ".jpg",
    sample_pb2.PAYLOAD_ENCODING_H264: ".h264",
}
_TYPES = {
    name: stored.sql_type.python_type
    for name, stored in COLUMNS.items()
    if not (stored.key or isinstance(stored.sql_type, JSON))
}
_TEXTS = tuple(name for name, python_type in _TYPES.items() if python_type in (bytes, str))
_MOMENTS = tuple(name.removesuffix("_s") for name in _TYPES if name.endswith("_s"))
_PLAIN = tuple(name for name in _TYPES if name not in _TEXTS and not name.endswith("_s"))


@dataclass(slots=True)
class ExportCounts:
    """Numbers of exported verdicts, labels and payload files; `payloads_left_out` have expired or are damaged."""

    verdicts: int = 0
    labels: int = 0
    payloads: int = 0
    payloads_left_out: int = 0


async def export(
    store: Store, folder: Path, wanted: ExportSelection, *, with_payloads: bool, on_share: Callable[[float], None]
) -> ExportCounts:
    """Write the selected verdicts and their labels, and the payload of each labelled sample if `with_payloads`.

    `on_share` gets the share done, in [0, 1]. The files appear when they are complete. Raises SettingsError unless the
    folder is new or empty, MissingExtraError without pyarrow.
    """
    _check_folder(folder)
    counts = ExportCounts()
    with (
        _table(folder / VERDICTS_FILE, _verdicts_schema) as add_verdicts,
        _table(folder / LABELS_FILE, _labels_schema) as add_labels,
    ):
        async for page, share in _labelled_pages(store, wanted) if wanted.needs_label else _pages(store, wanted):
            found = [label for item in page for label in item.labels]
            add_verdicts([_verdict_row(item) for item in page])
            add_labels([_label_row(label) for label in found])
            counts.verdicts += len(page)
            counts.labels += len(found)
            if with_payloads:
                await _write_payloads(store, folder / PAYLOADS_FOLDER, page, counts)
            on_share(share)
    on_share(1.0)
    return counts


async def _pages(store: Store, wanted: ExportSelection) -> AsyncIterator[tuple[Sequence[Exported], float]]:
    """Yield pages of the selected verdicts, each with the share done."""
    async with store.reading() as connection:
        span = await time_range(connection, wanted)
    after = None
    while span is not None:
        async with store.reading() as connection:
            page = await export_page(connection, wanted, after, PAGE_SIZE)
        if not page:
            return
        last = page[-1].record
        after = VerdictKey(last.judged_at_s, last.number)
        yield page, (last.judged_at_s - span[0]) / max(span[1] - span[0], 1e-9)


async def _labelled_pages(store: Store, wanted: ExportSelection) -> AsyncIterator[tuple[Sequence[Exported], float]]:
    """Yield pages of verdicts that are selected by their label, each with the share done."""
    async with store.reading() as connection:
        numbers = await labelled_numbers(connection, wanted)
    for start in range(0, len(numbers), PAGE_SIZE):
        async with store.reading() as connection:
            page = await exported(connection, numbers[start : start + PAGE_SIZE])
        if page:
            yield page, (start + PAGE_SIZE) / (len(numbers) + PAGE_SIZE)


async def _write_payloads(store: Store, folder: Path, page: Sequence[Exported], counts: ExportCounts) -> None:
    folder.mkdir(exist_ok=True)
    for sample_id in [item.record.sample_id for item in page if item.labels]:
        payload = await stored_payload(store, sample_id)
        try:
            suffix, data = _payload_file(payload) if payload is not None and not payload.loss else ("", b"")
        except SampleRejected:
            suffix = ""
        if not suffix:
            counts.payloads_left_out += 1
            continue
        write_durably(folder / f"{sample_id}{suffix}", data)
        counts.payloads += 1


def _payload_file(payload: StoredPayload) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a payload's file: as received, or an array for readings and frames."""
    suffix = _SUFFIXES.get(payload.message.encoding)
    if suffix is not None:
        return suffix, payload.message.data
    buffer = io.BytesIO()
    np.save(buffer, decode_payload(payload.message, payload.modality), allow_pickle=False)
    return ".npy", buffer.getvalue()


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder}: not an empty folder. Give --output a new one.")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be made ({error.strerror}). Give --output another place.") from None


@contextlib.contextmanager
def _table(path: Path, make_schema: Callable[[Any], Any]) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Open a Parquet file for rows; it gets its name when all rows are written, and is removed after an error."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise MissingExtraError("Parquet files need pyarrow: pip install 'vedette[parquet]'.") from None
    schema, unfinished = make_schema(pyarrow), path.with_name(path.name + UNFINISHED)
    try:
        with ParquetWriter(unfinished, schema, compression="zstd") as writer:
            yield lambda rows: writer.write_table(pyarrow.Table.from_pylist(rows, schema)) if rows else None
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _verdict_row(item: Exported) -> dict[str, Any]:
    record, label = item.record, newest_label(item.labels)
    return {
        **{name: str(getattr(record, name)) for name in _TEXTS},
        **{name: _moment(getattr(record, f"{name}_s")) for name in _MOMENTS},
        **{name: getattr(record, name) for name in _PLAIN},
        "opinions": opinions_to_json(record.opinions),
        "contributions": contributions_to_json(record.contributions),
        "label": label.value if label is not None else None,
        "defect_class": item.labels[0].defect_class or None if label is not None else None,
    }


def _label_row(label: StoredLabel) -> dict[str, Any]:
    return {
        "sample_id": str(label.sample_id),
        "label": label.label.value,
        "defect_class": label.defect_class or None,
        "author": label.author,
        "note": label.note,
        "at": _moment(label.at_s),
        "current": label.is_current,
    }


def _moment(at_s: float) -> int:
    """Return microseconds since the epoch within the years 1 to 9999; a device may claim any time."""
    if not FIRST_S <= at_s <= LAST_S:
        at_s = LAST_S if at_s > LAST_S else FIRST_S
    return round(at_s * 1e6)


def _verdicts_schema(arrow: Any) -> Any:
    text, number, flag, moment = arrow.string(), arrow.float64(), arrow.bool_(), arrow.timestamp("us", "UTC")
    opinion = {"analyzer": text, "score": number, "p_value": number, "extrapolated": flag}
    plain = {bool: flag, int: arrow.int64(), float: number}
    return arrow.schema(
        {
            **dict.fromkeys(_TEXTS, text),
            **dict.fromkeys(_MOMENTS, moment),
            **{name: plain[_TYPES[name]] for name in _PLAIN},
            "opinions": arrow.list_(arrow.struct(opinion)),
            "contributions": arrow.list_(arrow.struct({"name": text, "share": number})),
            "label": text,
            "defect_class": text,
        }.items()
    )


def _labels_schema(arrow: Any) -> Any:
    texts = dict.fromkeys(("sample_id", "label", "defect_class", "author", "note"), arrow.string())
    return arrow.schema((texts | {"at": arrow.timestamp("us", "UTC"), "current": arrow.bool_()}).items())
