"""Rollouts in words and as the figures of their pictures."""

from dataclasses import dataclass
from typing import Any

from cloud.rollouts.gates import GateFigures, GateResult
from cloud.rollouts.limits import GateLimit, RolloutLimits
from cloud.rollouts.phases import ACTIVE, RolloutPhase
from cloud.rollouts.stage_devices import RolloutState
from cloud.store.rollout_view import RolloutView, StageView
from cloud.words import SPACE, count_words, duration_words

PHASE_TONES = {
    RolloutPhase.UNDER_WAY: "under-way",
    RolloutPhase.PAUSED: "paused",
    RolloutPhase.COMPLETED: "good",
    RolloutPhase.HALTED: "bad",
    RolloutPhase.TAKEN_BACK: "over",
}
STATE_TONES = {
    RolloutState.WENT_BACK: "bad",
    RolloutState.SILENT: "bad",
    RolloutState.IDLE: "bad",
    RolloutState.FETCHES: "warn",
    RolloutState.RUNS: "good",
    RolloutState.LATER: "none",
}
GATE_WORDS = {
    "duration": "Samples of this stage",
    "swaps": "Devices that went back",
    "device health": "Silent or idle devices",
    "forwarded share": "Forwarded samples",
    "alarmed share": "Alarms",
    "agreement": "Forwarded, but normal to the cloud",
    "audit misses": "Accepted, but anomalous to the cloud",
}
LIMIT_FIELDS = (
    ("max_forwarded", "Forwarded samples"),
    ("max_alarmed", "Alarms"),
    ("max_dismissed", "Forwarded, but normal to the cloud"),
    ("max_missed", "Accepted, but anomalous to the cloud"),
    ("max_unhealthy", "Silent or idle devices"),
)
"""Limits of a rollout's form: field of `RolloutLimits`, and its words."""

_MOST_DRAWN = 1.15  # of the largest figure: the right end of the picture of a gate


@dataclass(frozen=True, slots=True)
class GateOnPage:
    """One gate; `low`, `value`, `high` and `limit` are places in percent of its picture, None without one."""

    name: str
    outcome: str
    text: str
    value_words: str = ""
    limit_words: str = ""
    count_words: str = ""
    until_words: str = ""
    low: float | None = None
    value: float = 0.0
    high: float = 0.0
    limit: float | None = None


def rollout_on_page(rollout: RolloutView) -> dict[str, Any]:
    """Return a rollout as its page shows it."""
    last = rollout.history[-1] if rollout.history else None
    return {
        "number": rollout.number,
        "bundle_name": rollout.bundle_name,
        "bundle_id": rollout.bundle_id,
        "before_bundle_id": rollout.before_bundle_id,
        "phase": rollout.phase.value,
        "tone": PHASE_TONES[rollout.phase],
        "is_active": rollout.phase in ACTIVE,
        "is_paused": rollout.phase is RolloutPhase.PAUSED,
        "stage": rollout.stage,
        "started_at_s": rollout.started_at_s,
        "ended_at_s": rollout.ended_at_s,
        "stages": [_stage(stage, place) for place, stage in enumerate(rollout.stages)],
        "gates": [gate_on_page(gate) for gate in rollout.gates],
        "limits": limit_rows(rollout.limits),
        "history": rollout.history[::-1],
        "halt_reason": last.reason if last is not None and rollout.phase is RolloutPhase.HALTED else "",
        "next_words": _next_words(rollout),
    }


def gate_on_page(gate: GateResult) -> GateOnPage:
    """Return a gate with its figures in words and the places of its picture."""
    name, figures = GATE_WORDS.get(gate.gate, gate.gate), gate.figures
    if figures is None:
        return GateOnPage(name, gate.outcome, gate.text)
    words: dict[str, Any] = {
        "value_words": _percent(figures.value),
        "limit_words": f"at most {_percent(figures.limit)}" if figures.limit is not None else "",
        "count_words": f"{count_words(round(figures.count))} {_unit(figures)}",
        "until_words": until_words(gate),
    }
    if gate.gate == "duration":
        words |= {"limit_words": f"of {count_words(round(figures.needed or 0))}", "value_words": words["count_words"]}
        return GateOnPage(name, gate.outcome, gate.text, **words, low=0.0, value=100 * figures.value, high=0.0)
    most = _MOST_DRAWN * max(figures.high, figures.limit or 0.0, 1e-9)
    places = {key: 100 * getattr(figures, key) / most for key in ("low", "value", "high")}
    limit = 100 * figures.limit / most if figures.limit is not None else None
    return GateOnPage(name, gate.outcome, gate.text, **words, **places, limit=limit)


def until_words(gate: GateResult) -> str:
    """Return how much a waiting gate lacks, and how long that takes; empty for another one."""
    figures = gate.figures
    if gate.outcome != "waiting" or figures is None:
        return ""
    if figures.needed is None:
        return "the share is not below its limit: more samples decide" if figures.limit is not None else ""
    missing = max(0.0, figures.needed - figures.count)
    lacks = f"{count_words(round(missing))} more {_unit(figures)}" if missing else ""
    if figures.remaining_s is None:
        return lacks
    return f"{lacks}, about {duration_words(figures.remaining_s)}".removeprefix(", ")


def limit_rows(limits: RolloutLimits) -> list[tuple[str, str]]:
    """Return the limits of the gates: name, and the largest share in words."""
    rows = [(words, _limit_words(getattr(limits, name))) for name, words in LIMIT_FIELDS]
    return [
        *rows,
        ("Devices that went back", f"at most {_percent(limits.max_failed)} of a stage"),
        ("Devices that halt", f"at least {limits.min_devices}, unless the stage has fewer"),
    ]


def stage_share(stage: StageView) -> str:
    """Return the devices of a stage in words."""
    if stage.devices:
        return f"{len(stage.devices)} named device{'s' if len(stage.devices) > 1 else ''}"
    return f"{stage.percent:g}{SPACE}% of the fleet" if stage.percent else "chosen devices"


def _stage(stage: StageView, place: int) -> dict[str, Any]:
    total = sum(stage.counts.values())
    bars, start = [], 0.0
    for state, count in sorted(stage.counts.items(), key=lambda item: item[0] is not RolloutState.RUNS):
        width = 100 * count / total
        bars.append({"x": start, "width": width, "tone": STATE_TONES[state], "words": f"{count} {state.value}"})
        start += width
    return {
        "place": place + 1,
        "name": stage.name,
        "share": stage_share(stage),
        "state": stage.state,
        "tone": stage.state.replace(" ", "-"),
        "least": f"{count_words(stage.least_samples)} samples and {duration_words(stage.least_s)}",
        "total": total,
        "bars": bars,
        "listed": [
            {"device_id": device.device_id, "state": device.state.value, "tone": STATE_TONES[device.state]}
            for device in stage.listed
        ],
        "unlisted": max(0, total - len(stage.listed)),
    }


def _next_words(rollout: RolloutView) -> str:
    """Return what happens next, for a rollout that is not over."""
    if rollout.phase is RolloutPhase.PAUSED:
        return "Paused: no further stage begins. A gate that fails still halts it."
    if rollout.phase is not RolloutPhase.UNDER_WAY:
        return ""
    waiting = [gate for gate in rollout.gates if gate.outcome == "waiting"]
    if not rollout.gates:
        return "The gates are checked in a moment."
    if not waiting:
        return "All gates have passed: the next stage begins with the next check."
    names = ", ".join(GATE_WORDS.get(gate.gate, gate.gate).lower() for gate in waiting)
    known = [gate.figures.remaining_s for gate in waiting if gate.figures is not None]
    longest = [seconds for seconds in known if seconds is not None]
    text = f"This stage waits for {len(waiting)} gate{'s' if len(waiting) > 1 else ''}: {names}"
    if longest and len(longest) == len(waiting):
        return f"{text}. At the present rate they are passed in about {duration_words(max(longest))}."
    return f"{text}."


def _limit_words(limit: GateLimit) -> str:
    return f"at most {limit.ratio:g} times as much as before plus {_percent(limit.slack)}"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.{0 if percent >= 10 or percent == 0 else 1 if percent >= 1 else 2}f}{SPACE}%"


def _unit(figures: GateFigures) -> str:
    return figures.unit.removesuffix("s") if round(figures.count) == 1 else figures.unit
