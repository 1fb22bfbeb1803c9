"""Bound on the modules that decide by modality outside the modalities' own modules."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
# Modules that may name a modality or read it off an array. Lower a bound when a module stops; never raise one.
BOUNDS = {"edge": 6, "cloud": 11, "shared": 6}


@pytest.fixture(scope="module")
def counter() -> ModuleType:
    path = ROOT / "scripts" / "count_modality_mentions.py"
    spec = importlib.util.spec_from_file_location("count_modality_mentions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", BOUNDS)
def test_no_more_modules_decide_by_modality_than_before(counter: ModuleType, package: str) -> None:
    modules = sorted({name for name, _, _ in counter.mentions(ROOT) if name.startswith(f"{package}/")})
    assert len(modules) <= BOUNDS[package], "Ask cloud_modality() or training_modality() instead: " + ", ".join(modules)


def test_modules_that_state_the_modality_of_a_data_set_branch_on_none(counter: ModuleType) -> None:
    branch = re.compile(r"\b(?:if|elif|case|while)\b|\bis(?: not)?\b|[=!]=|\b(?:not )?in\b")
    for name in counter.DATA_SETS:
        lines = [line for line in (ROOT / name).read_text().splitlines() if counter.NAMED.search(line)]
        assert lines, f"{name} names no modality: remove it from DATA_SETS"
        assert not [line for line in lines if branch.search(line)], name


def test_the_counter_finds_names_and_shapes_but_not_the_modalities_own_modules(
    counter: ModuleType, tmp_path: Path
) -> None:
    for name, code in {
        "cloud/modalities/image.py": "name = Modality.IMAGE\n",
        "cloud/training/modalities/image.py": "spec.image_height\n",
        "cloud/comment.py": "# Modality.IMAGE\n",
        "cloud/declared.py": "    modality: Modality = Modality.IMAGE\n",
        "cloud/evaluation/labels.py": "stream(Modality.SERIES)\n",
        "cloud/named.py": "if modality is Modality.VIDEO:\n",
        "edge/rank.py": "big = inputs.ndim >= 4\n",
        "edge/size.py": "spec.image_width\n",
        "shared/sample_pb2.py": "Modality.IMAGE\n",
        "shared/modality.py": "Modality.IMAGE\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    assert counter.counts(tmp_path) == {"edge": 2, "cloud": 1, "shared": 0}
