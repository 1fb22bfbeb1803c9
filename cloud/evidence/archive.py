"""Export of one verdict as a ZIP archive: the evidence as JSON, values as CSV, pictures as PNG."""

import csv
import io
import json
import zipfile
from collections.abc import Iterator

import numpy as np

from cloud.evidence.document import document_of
from cloud.evidence.pictures import overlay_png, picture_png, with_overlay
from cloud.evidence.reading import Evidence, expected_picture_of
from cloud.modalities import View, cloud_modality

MAX_FRAMES = 64
_FIXED_DATE = (2000, 1, 1, 0, 0, 0)  # equal evidence gives equal bytes


def export_zip(evidence: Evidence) -> bytes:
    """Return the archive. Blocking: it draws pictures."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _files(evidence):
            entry = zipfile.ZipInfo(f"{evidence.record.sample_id}/{name}", _FIXED_DATE)
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()


def _files(evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    yield "verdict.json", json.dumps(document_of(evidence), indent=1, allow_nan=False).encode()
    values, view = evidence.contents.values, cloud_modality(evidence.record.modality).view
    if evidence.contents.cloud_map is not None and view in (View.PICTURE, View.CLIP):
        yield "cloud_map.png", overlay_png(evidence.contents.cloud_map)
    if evidence.contents.edge_map is not None and view in (View.PICTURE, View.CLIP):
        yield "edge_map.png", overlay_png(evidence.contents.edge_map)
    if values is None:
        return
    if view is View.PICTURE:
        yield from _pictures(evidence, values.astype(np.uint8, copy=False))
    elif view is View.CLIP:
        for place, frame in enumerate(values[:MAX_FRAMES].astype(np.uint8, copy=False), 1):
            yield f"frames/{place:03d}.png", picture_png(frame)
    else:
        yield "values.csv", _table(evidence)


def _pictures(evidence: Evidence, pixels: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield "picture.png", picture_png(pixels)
    cells = evidence.marked_cells
    if cells is not None:
        yield "picture_with_map.png", picture_png(with_overlay(pixels, cells))
    expected = expected_picture_of(evidence)
    if expected is not None:
        yield "expected.png", picture_png(expected)


def _table(evidence: Evidence) -> bytes:
    """Return the values as CSV: a line for each feature, or for each row of the plot."""
    text = io.StringIO()
    writer = csv.writer(text)
    plot = evidence.series
    if plot is None:
        writer.writerow(["feature", "value", "normal_low", "normal_high", "expected", "share"])
        for each in evidence.features:
            ends = ("", "") if each.normal is None else (each.normal.low, each.normal.high)
            expected = "" if each.typical is None else each.typical[1]
            writer.writerow([_text(each.name), each.value, *ends, expected, "" if each.share is None else each.share])
        return text.getvalue().encode()
    names = [name for each in plot.channels for name in (_text(each.name), _text(f"{each.name} expected"))]
    writer.writerow(["row", "in_window", "time_s", *names])
    for row in range(plot.rows):
        cells = [
            "" if column is None or np.isnan(column[row]) else column[row]
            for each in plot.channels
            for column in (each.values, each.expected)
        ]
        at_s = plot.time_of(row)
        inside = plot.begin <= row < plot.begin + plot.length
        writer.writerow([row - plot.begin, int(inside), "" if at_s is None else f"{at_s:.3f}", *cells])
    return text.getvalue().encode()


def _text(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
