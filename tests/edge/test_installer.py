"""The states of a bundle's installation."""

import pytest

from edge.bundles.installer import TRANSITIONS, Event, Installation, Phase

WANTED, FETCHED, INTERRUPTED, REFUSED = Event.WANTED, Event.FETCHED, Event.INTERRUPTED, Event.REFUSED
SWAPPED, PASSED, FAILED = Event.SWAPPED, Event.PASSED, Event.FAILED


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([], Phase.IDLE),
        ([WANTED], Phase.FETCHING),
        ([WANTED, INTERRUPTED], Phase.IDLE),
        ([WANTED, INTERRUPTED, WANTED, FETCHED], Phase.WARMING),
        ([WANTED, REFUSED], Phase.GIVEN_UP),
        ([WANTED, FETCHED, PASSED], Phase.ACTIVE),
        ([WANTED, FETCHED, FAILED], Phase.ROLLED_BACK),
        ([WANTED, FETCHED, REFUSED], Phase.GIVEN_UP),
        ([WANTED, FETCHED, INTERRUPTED], Phase.IDLE),
        ([WANTED, FETCHED, SWAPPED], Phase.TRIAL),
        ([WANTED, FETCHED, SWAPPED, SWAPPED, PASSED], Phase.ACTIVE),
        ([WANTED, FETCHED, SWAPPED, FAILED], Phase.ROLLED_BACK),
        ([WANTED, FETCHED, SWAPPED, INTERRUPTED], Phase.IDLE),
        ([WANTED, FETCHED, SWAPPED, REFUSED], Phase.GIVEN_UP),
        ([WANTED, FETCHED, SWAPPED, PASSED, WANTED], Phase.FETCHING),
        ([WANTED, FETCHED, SWAPPED, FAILED, WANTED], Phase.FETCHING),
        ([WANTED, REFUSED, WANTED], Phase.FETCHING),
    ],
)
def test_events_lead_to_their_phase(events: list[Event], end: Phase) -> None:
    installation = Installation()
    for event in events:
        installation.on(event)
    assert installation.phase is end


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_an_event_that_a_phase_does_not_allow_raises_and_changes_nothing(phase: Phase, event: Event) -> None:
    installation = Installation()
    installation.phase = phase
    if (phase, event) in TRANSITIONS:
        installation.on(event)
        assert installation.phase is TRANSITIONS[phase, event]
        return
    with pytest.raises(ValueError, match=f"{phase} cannot be {event}"):
        installation.on(event)
    assert installation.phase is phase


def test_no_new_bundle_interrupts_one_that_is_under_way() -> None:
    busy = {Phase.FETCHING, Phase.WARMING, Phase.TRIAL}
    assert {phase for phase, event in TRANSITIONS if event is WANTED} == set(Phase) - busy
    assert all({following for (phase, _), following in TRANSITIONS.items() if phase is item} for item in busy)
