"""`vedette bench edge`: real measurements of the agent, the bare engine and PyTorch."""

import json
import sys
from pathlib import Path

import pytest

from cloud.evaluation.device.benchmark import ROUTED_VECTORS
from cloud.evaluation.device.page import edge_page
from cloud.evaluation.device.rate_worker import rate_worker
from cloud.evaluation.device.requirements import NOT_MEASURED_NOTE, requirements
from shared.errors import SettingsError, VedetteError

AGENTS = ("int8_openvino", "int8_onnxruntime")


@pytest.mark.system
@pytest.mark.long
def test_a_quick_run_measures_both_sides_of_every_ratio(
    tmp_path: Path, quick: Path, vedette, capsys: pytest.CaptureFixture[str]
) -> None:
    result, page = tmp_path / "edge.json", tmp_path / "edge.md"
    what = ("--modality", "series", "--windows", "16x8", "--config", quick)
    options = (*what, "--quick", "--json", result, "--output", page)
    assert vedette("bench", "edge", *options) == 0
    found = json.loads(result.read_text())
    figures = found["figures"]["series 16 x 8"]
    throughput, int8 = figures["throughput"], figures["int8"]
    for name in AGENTS:
        agent, footprint = throughput[name], figures["footprint"][name]
        assert agent["ratio"] == pytest.approx(agent["samples_per_s"] / throughput["bare_samples_per_s"])
        assert agent["ratio_to_best"] == pytest.approx(agent["samples_per_s"] / throughput["bare_best_samples_per_s"])
        assert 0.5 / agent["samples_per_s"] < agent["cpu_us_per_sample"] < 1e6  # a loaded machine is slow
        assert 0.0 < agent["forwarded_share"] < 0.5
        assert 30 < footprint["peak_resident_mib"] < 2000
        assert 0 < footprint["start_cpu_s"] < 60
        assert not footprint["loads_torch"]
    size = figures["samples"]["batch_size"]
    assert throughput["bare_best_batch_size"] in (size // 4, size)  # the candidates of a quick run
    assert int8["artefact"] in AGENTS
    assert int8["batch_size"] == int8["eager_batch_size"] == 1
    assert int8["ratio"] == pytest.approx(int8["samples_per_s"] / int8["eager_samples_per_s"])
    routing = figures["routing"]
    assert routing["forwarded"] / routing["samples"] == pytest.approx(0.06, abs=0.01)  # 5 % forwarded, 1 % audited
    assert routing["cpu_us_per_sample"] * routing["samples"] == pytest.approx(routing["cpu_us"])
    for row in found["requirements"]:
        reached = row["measured"] >= row["required"] if row["at"] == "least" else row["measured"] <= row["required"]
        assert row["met"] is reached
    assert len(found["requirements"]) == 6  # throughput twice, start of two agents, INT8, router and spool
    assert "--quick" in found["command"]
    assert str(tmp_path) not in page.read_text()
    assert "router and spool" in page.read_text()
    assert "end-to-end" in capsys.readouterr().out


@pytest.mark.system
@pytest.mark.long
def test_a_complete_run_measures_every_batch_size_and_the_whole_stream(tmp_path: Path, quick: Path, vedette) -> None:
    result = tmp_path / "edge.json"
    options = ("--modality", "series", "--windows", "16x8", "--rounds", "1", "--seconds", "1", "--config", quick)
    assert vedette("bench", "edge", *options, "--json", result) == 0
    figures = json.loads(result.read_text())["figures"]["series 16 x 8"]
    routing = figures["routing"]
    assert all(figures["throughput"][name]["samples_per_s"] > 0 for name in AGENTS)
    assert routing["samples"] >= ROUTED_VECTORS  # complete batches
    assert routing["forwarded"] / routing["samples"] == pytest.approx(0.06, abs=0.01)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--modality", "sound"), "--modality sound"),
        (("--windows", "16x8,12"), "--windows 16x8,12"),
        (("--windows", "64x64"), "at most 2048 values"),
        (("--data", "readings.csv"), "need --bundle"),
        (("--bundle", "pump.vedette"), "--bundle needs --data"),
    ],
)
def test_invalid_options_are_refused_in_one_line_and_in_the_json(
    tmp_path: Path, vedette, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str
) -> None:
    result = tmp_path / "edge.json"
    assert vedette("bench", "edge", *options, "--json", result) == SettingsError.exit_code
    assert reason in " ".join(capsys.readouterr().err.split())
    assert reason in json.loads(result.read_text())["error"]


def test_a_limit_is_at_least_or_at_most_and_one_without_a_peer_is_not_met() -> None:
    figures = {
        "image": {
            "throughput": {"bare_samples_per_s": 100.0, "int8_openvino": {"ratio": 0.9, "ratio_to_best": 0.8}},
            "int8": {"ratio": 2.4},
            "peer": None,
            "footprint": {"int8_openvino": {"peak_resident_mib": 201.0, "start_s": 2.0}},
            "routing": {"cpu_us_per_sample": 100.5},
        }
    }
    rows = requirements(figures)
    met = {row["what"]: row["met"] for row in rows}
    assert list(met.values()) == [True, False, False, None, False, True, False]
    assert [row["note"] for row in rows if row["met"] is None] == [NOT_MEASURED_NOTE]
    summary = {
        "command": "vedette bench edge",
        "version": "1",
        "machine": {"cores": 1, "architecture": "any", "python": "3", "openvino": "1"},
        "requirements": rows,
        "figures": figures,
    }
    assert f"| at least 3 | {NOT_MEASURED_NOTE} |" in edge_page(summary)


def test_a_peer_that_cannot_run_is_reported_with_its_last_line(tmp_path: Path) -> None:
    script = tmp_path / "peer.py"
    script.write_text("import sys\nsys.stdin.readline()\nimport no_such_peer\n")
    failed = pytest.raises(VedetteError, match=r"The peer failed: .*no_such_peer")
    with failed, rate_worker("The peer", [sys.executable, script], {}):
        pass
    not_started = pytest.raises(VedetteError, match=r"The peer cannot be started: .*nowhere")
    with not_started, rate_worker("The peer", [tmp_path / "nowhere", script], {}):
        pass
