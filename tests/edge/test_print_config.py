"""`vedette edge run --print-config` prints TOML that `--config` reads."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.settings import AgentSettings
from shared.cli import build

ROOT = Path(__file__).parents[2]
SOURCES = """
state_dir = "state \\"quoted\\""
[[sources]]
id = "press"
kind = "replay"
path = "readings.csv"
bundle_name = "press"
[[sources]]
id = "hall"
kind = "images"
path = "pictures"
bundle_name = "hall"
[[alarms]]
id = "log"
kind = "file"
path = "alarms.jsonl"
sources = ["press"]
[router]
false_alarms_per_day = 2
"""


@pytest.mark.parametrize("text", [SOURCES, (ROOT / "deploy" / "edge.toml").read_text(encoding="utf-8")])
def test_printed_settings_are_read_back(tmp_path: Path, text: str) -> None:
    first, second = tmp_path / "edge.toml", tmp_path / "printed.toml"
    first.write_text(text)
    done = CliRunner().invoke(build().root, ["edge", "run", "--print-config", "--config", str(first)])
    assert done.exit_code == 0, done.output
    second.write_text(done.stdout)
    assert AgentSettings.load(second) == AgentSettings.load(first)
