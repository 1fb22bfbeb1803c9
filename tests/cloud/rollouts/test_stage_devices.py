"""Devices of the stages of a rollout: each once, counted in full, and listed with those in trouble first."""

from cloud.rollouts.stage_devices import MAX_LISTED, RolloutState, devices_by_stage
from cloud.rollouts.stages import Stage

STAGES = (Stage(name="trial", devices=("press-1", "press-2")), Stage(name="wave 100 %", percent=100))


def test_a_device_is_in_the_first_stage_that_includes_it():
    states = [("press-1", RolloutState.RUNS), ("press-2", RolloutState.WENT_BACK), ("press-3", RolloutState.LATER)]
    trial, wave = devices_by_stage(STAGES, "biopsy-2-00000000", states)
    assert trial.counts == {RolloutState.WENT_BACK: 1, RolloutState.RUNS: 1}
    assert [device.device_id for device in trial.listed] == ["press-2", "press-1"]
    assert wave.counts == {RolloutState.LATER: 1}


def test_a_large_stage_lists_a_few_devices_and_none_in_trouble_is_left_out():
    states = [(f"press-{number}", RolloutState.RUNS) for number in range(1000, 1500)]
    states.append(("press-9999", RolloutState.SILENT))
    _, wave = devices_by_stage(STAGES, "biopsy-2-00000000", states)
    assert wave.counts == {RolloutState.SILENT: 1, RolloutState.RUNS: 500}
    assert len(wave.listed) == MAX_LISTED
    assert wave.listed[0].device_id == "press-9999"
