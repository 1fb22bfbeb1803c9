"""Tests of the standard-input source: JSON and CSV lines from another program, valid or not."""

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.settings import AgentSettings
from edge.settings.sources import StdinSettings
from edge.sources.base import Pacer
from edge.sources.records import MAX_PAYLOAD_BYTES
from edge.sources.stdin import StdinSource
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import SampleBatch
from tests.edge.bundles import normal_rows
from tests.edge.device import ROOT, Device

ROWS = InputSpec(channels=("heat", "load"))
WINDOWS = InputSpec(channels=("heat", "load"), window_length=3, window_stride=1)


def batches(data: bytes, spec: InputSpec = ROWS, **more: Any) -> list[SampleBatch]:
    settings = StdinSettings(id="line", kind="stdin", bundle=Path("b"), **more)
    modality = Modality.SERIES if spec.window_length else Modality.TABULAR
    pacer = Pacer(0.0, 64, 0.0, threading.Event())
    return list(StdinSource(settings, modality, spec, pacer, io.BytesIO(data)).batches())


def values_of(found: list[SampleBatch]) -> list[Any]:
    return [sample for batch in found for sample in np.asarray(batch.values).tolist()]


def reasons_of(found: list[SampleBatch]) -> list[tuple[str, str]]:
    return [(item.origin, item.reason) for batch in found for item in batch.rejections]


def test_json_lines_are_read_to_the_end() -> None:
    found = batches(b'{"heat": 1, "load": 2}\n\nnonsense\n{"load": 4, "heat": 3}')
    assert values_of(found) == [[1, 2], [3, 4]]
    assert reasons_of(found) == [("stdin:3", "is not JSON: 'nonsense'.")]


@pytest.mark.parametrize(
    "text", ["load,heat\n2,1\n4,3\n", "load;x;heat\r\n2;9;1\r\n4;9;3\r\n", "\ufeffload\theat\n2\t1\n4\t3"]
)
def test_csv_columns_are_selected_by_the_header(text: str) -> None:
    assert values_of(batches(text.encode(), format="csv")) == [[1, 2], [3, 4]]


def test_short_and_broken_csv_lines_are_rejected() -> None:
    found = batches(b"load,heat\n2\n4,x\n6,5\n", format="csv")
    assert values_of(found) == [[5, 6]]
    assert reasons_of(found) == [
        ("stdin:1", "has 1 cells, and the header 2: one is missing or too many."),
        ("stdin:2", "channel 'heat' cannot be read: 'x' is not a number."),
    ]


@pytest.mark.parametrize("more", [{}, {"interval_s": 1.0, "time_path": "at"}, {"hold_s": 10.0}])
def test_a_row_is_rejected_whole_and_a_reading_alone(more: dict[str, Any]) -> None:
    line = b'{"at": 1, "heat": "x", "load": "y"}\n{"at": 2, "heat": "x", "load": 4}\n'
    found = batches(line, **more)
    assert np.array_equal(values_of(found), [[np.nan, 4]] if more else [], equal_nan=bool(more))
    assert [origin for origin, _ in reasons_of(found)] == (["stdin:1"] * bool(more) + ["stdin:1", "stdin:2"])


@pytest.mark.parametrize("first", ["5,1,2", "x9,1,2", "??,??"])
@pytest.mark.parametrize("rest", ["", "oops,oops\n6,5\n"])
def test_a_first_row_that_does_not_fit_is_rejected(first: str, rest: str) -> None:
    found = batches(f"load,heat\n{first}\n{rest}".encode(), format="csv")
    assert values_of(found) == ([[5, 6]] if rest else [])
    assert {origin for origin, _ in reasons_of(found)} == ({"stdin:1", "stdin:2"} if rest else {"stdin:1"})


def test_windows_of_aligned_readings_are_flushed_at_the_end() -> None:
    lines = [json.dumps({"t": second / 2, "heat": second, "load": -second}) for second in range(10)]
    found = batches("\n".join(lines).encode(), WINDOWS, time_path="t", interval_s=1.0, lateness_s=3.0)
    assert [[row[0] for row in window] for window in values_of(found)] == [[1, 3, 5], [3, 5, 7], [5, 7, 9]]


def test_an_overlong_line_is_rejected_and_the_next_one_read() -> None:
    found = batches(b"x" * (3 * MAX_PAYLOAD_BYTES) + b'\n{"heat": 1, "load": 2}\n')
    assert values_of(found) == [[1, 2]]
    assert "longer" in reasons_of(found)[0][1]


def test_only_one_source_can_read_standard_input() -> None:
    source = {"kind": "stdin", "bundle": "b"}
    with pytest.raises(ValueError, match="only one can"):
        AgentSettings.model_validate({"state_dir": "s", "sources": [{"id": "a", **source}, {"id": "b", **source}]})


def test_an_agent_screens_piped_lines(device: Device) -> None:
    rows = normal_rows(3000, seed=9)
    lines = "\n".join(json.dumps(dict(zip(("heat", "load", "flow"), row.tolist(), strict=True))) for row in rows)
    bundle = device.settings["sources"][0]["bundle"]
    device.settings["sources"] = [{"id": "line", "kind": "stdin", "bundle": bundle}]
    device.write()
    command = [Path(sys.executable).parent / "vedette", "edge", "run", "--config", device.config, "--until-done"]
    ended = subprocess.run(command, input=lines.encode(), capture_output=True, cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert device.counters()["samples_screened"] == 3000


def test_csv_lines_use_the_header_s_delimiter_and_a_missing_column_is_an_error() -> None:
    found = batches(b"heat;load\n1,5;2,5\n3;4\n", format="csv")
    assert values_of(found) == [[1.5, 2.5], [3, 4]]
    assert reasons_of(found) == []
    with pytest.raises(DataError, match=r"lacks column 'load'; it has 'heat', 'lod'.* under channels"):
        batches(b"heat,lod\n1,2\n", format="csv")


def test_an_agent_with_open_input_stops_cleanly(device: Device) -> None:
    bundle = device.settings["sources"][0]["bundle"]
    device.settings["sources"] = [{"id": "line", "kind": "stdin", "bundle": bundle}]
    device.write()
    command = [Path(sys.executable).parent / "vedette", "edge", "run", "--config", device.config]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b'{"heat": 60, "load": 1, "flow": 400}\n')
        process.stdin.flush()
        end_s = time.monotonic() + 30
        while device.counters().get("samples_screened") != 1 and time.monotonic() < end_s:
            time.sleep(0.05)
        process.terminate()
        errors = process.stderr.read().decode()
        assert process.wait(10) == 0, errors
        assert "Fatal" not in errors
