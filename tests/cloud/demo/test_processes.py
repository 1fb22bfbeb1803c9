"""Tests of the demo's child processes."""

from pathlib import Path

from cloud.demo.processes import Processes


def test_the_last_line_of_a_training_is_its_stage_without_the_seconds(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {})
    assert processes.last_line("train-camera") == ""
    log = processes.log("train-camera")
    log.write_text("Made a signing key.\n")
    assert processes.last_line("train-camera") == ""
    log.write_text("   0.0 s  reading\n  12.3 s  fitting the analyzers  40%, about 18 s left\n")
    assert processes.last_line("train-camera") == "fitting the analyzers  40%, about 18 s left"
