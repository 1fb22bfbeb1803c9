"""Rollout of a bundle on its page: stages, gates and history."""

from collections.abc import Iterable, Sequence

from nicegui import ui

from cloud.store.rollout_view import RolloutView, StageView
from cloud.words import moment_words


def show_rollout(rollout: RolloutView) -> None:
    """Add the tables of a rollout to the page."""
    ui.label(f"Rollout, {rollout.phase}; the bundle before is {rollout.before_bundle_id}").style("margin-top: 14px")
    stages = ((stage.name, _devices(stage), stage.state) for stage in rollout.stages)
    _table(("Stage", "Devices", "State"), stages)
    _table(("Gate", "Result", "Seen"), ((gate.gate, gate.outcome, gate.text) for gate in rollout.gates))
    _table(
        ("Time", "Event", "Stage", "Author", "Reason"),
        ((moment_words(entry.at_s), entry.event, entry.stage, entry.author, entry.reason) for entry in rollout.history),
    )


def _devices(stage: StageView) -> str:
    named = ", ".join(stage.devices)
    return named or f"{stage.percent:g} % of the fleet"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Add a table of texts; without a row nothing is shown."""
    cells = list(rows)
    if not cells:
        return
    with ui.element("table").classes("v-rollout"):
        with ui.element("tr"):
            for text in header:
                with ui.element("th"):
                    ui.label(text)
        for row in cells:
            with ui.element("tr"):
                for text in row:
                    with ui.element("td"):
                        ui.label(text)
