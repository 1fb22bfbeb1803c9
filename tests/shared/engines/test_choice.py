"""The artefact that runs is the fastest one here, measured once."""

import json
import re
from pathlib import Path

import pytest

from edge.screener import load_screener
from shared.bundle import Bundle
from shared.engines import EngineConfiguration
from shared.engines import choice as artefact_choice
from shared.engines.choice import CHOICES_FILE, choose_artefact, cpu
from shared.engines.trial import measure


def test_every_artefact_is_measured_and_the_choice_is_remembered(
    tmp_path: Path, tabular: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {item.name for item in tabular.manifest.artefacts}
    choice = choose_artefact(tabular, 64, EngineConfiguration(tmp_path))
    assert set(choice.names) == names
    assert len(re.findall(r"[0-9.e-]+ ms", choice.reason)) == len(names)
    (found,) = json.loads((tmp_path / CHOICES_FILE).read_bytes()).values()
    assert found.keys() == names

    def again(*arguments: object) -> dict[str, float | str]:
        raise AssertionError("measured again")

    monkeypatch.setattr(artefact_choice, "measure", again)
    assert choose_artefact(tabular, 64, EngineConfiguration(tmp_path)) == choice
    with pytest.raises(AssertionError):
        choose_artefact(tabular, 32, EngineConfiguration(tmp_path))


def test_images_are_measured_as_well(tmp_path: Path, images: Bundle) -> None:
    found = measure(images, 8, EngineConfiguration(tmp_path))
    assert found.keys() == {item.name for item in images.manifest.artefacts}
    assert all(isinstance(value, float) and value > 0 for value in found.values())


@pytest.mark.parametrize(
    ("times", "first"),
    [
        ({"int8_openvino": 1.0, "int8_onnxruntime": 0.95}, "int8_openvino"),  # a tenth it has to save
        ({"int8_openvino": 1.0, "int8_onnxruntime": 0.5}, "int8_onnxruntime"),
        ({"int8_openvino": "OpenVINO refuses the graph", "int8_onnxruntime": 5.0}, "int8_onnxruntime"),
        ({}, "int8_openvino"),
        ({"int8_openvino": "no", "int8_onnxruntime": "no"}, "int8_openvino"),
    ],
)
def test_the_preferred_one_stays_unless_another_is_clearly_faster(
    tmp_path: Path, tabular: Bundle, monkeypatch: pytest.MonkeyPatch, times: dict[str, float | str], first: str
) -> None:
    assert tabular.manifest.preferred_artefact == "int8_openvino"
    monkeypatch.setattr(artefact_choice, "measure", lambda *arguments: times)
    choice = choose_artefact(tabular, 64, EngineConfiguration(tmp_path))
    assert choice.names[0] == first
    assert sorted(choice.names) == sorted(item.name for item in tabular.manifest.artefacts)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1}', b"\xff"])
def test_a_damaged_memory_is_made_anew(tmp_path: Path, tabular: Bundle, content: bytes) -> None:
    (tmp_path / CHOICES_FILE).write_bytes(content)
    load_screener(tabular, "auto", 16, tmp_path)
    assert json.loads((tmp_path / CHOICES_FILE).read_bytes())


def test_the_processor_is_named() -> None:
    assert re.fullmatch(r"\w+/\d+ [\w+ ]+", cpu())
