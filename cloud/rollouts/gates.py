"""Gates between the stages of a rollout: each says in one sentence what it saw.

A share of the new bundle is compared with the same share of the bundle before: on the same devices earlier, and on the
rest of the fleet now. The higher of the two counts, so that neither unusual devices nor a change of all data is taken
for a fault of the bundle. The limit is `ratio` times that share plus `slack`. A gate fails if the share certainly
exceeds the limit and passes if it certainly does not, both by bounds that hold at every look (cloud.rollouts.bounds);
between them it waits for more samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from cloud.rollouts.bounds import share_bounds
from cloud.rollouts.observation import Observation, ScreeningCounts
from cloud.rollouts.stages import Stage

ERROR = 0.0025
"""Probability that the bounds of a share are ever wrong; a gate halts a good bundle at most twice as often."""

MIN_RUNNING_SHARE = 0.8  # of the devices of a stage, before the next begins
MAX_FAILED_SHARE = 0.05  # of the devices of a stage


class Outcome(StrEnum):
    """Decision of a gate."""

    PASSED = "passed"
    WAITING = "waiting"
    FAILED = "failed"


class GateResult(BaseModel):
    """Decision of one gate, and a sentence with the figures that it saw."""

    model_config = ConfigDict(frozen=True)

    gate: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class GateLimit:
    """Largest share of the new bundle: `ratio` times the share of the bundle before, plus `slack`.

    A share that `must_pass` holds the stage until it is certainly within the limit; another one can only fail.
    """

    ratio: float
    slack: float
    must_pass: bool


FORWARDED = GateLimit(ratio=2.0, slack=0.02, must_pass=True)
ALARMED = GateLimit(ratio=2.0, slack=0.02, must_pass=True)
UNHEALTHY = GateLimit(ratio=1.0, slack=0.2, must_pass=False)
DISMISSED = GateLimit(ratio=1.5, slack=0.15, must_pass=False)
MISSED = GateLimit(ratio=2.0, slack=0.05, must_pass=False)


@dataclass(frozen=True, slots=True)
class Share:
    """A share `hits` / `count` and the words for it, such as "on the others now"."""

    words: str
    hits: float
    count: float

    def __str__(self) -> str:
        return f"{percent(self.hits, self.count)} {self.words} ({self.hits:.0f} of {self.count:.0f})"


def gates(stage: Stage, seen: Observation) -> tuple[GateResult, ...]:
    """Return the results of all gates of a stage."""
    return tuple(_gates(stage, seen))


def halting(results: Sequence[GateResult]) -> str:
    """Return the sentences of the gates that failed, or an empty text."""
    return " ".join(result.text for result in results if result.outcome is Outcome.FAILED)


def all_passed(results: Sequence[GateResult]) -> bool:
    """Return whether the next stage may begin."""
    return all(result.outcome is Outcome.PASSED for result in results)


def percent(hits: float, count: float) -> str:
    """Return a share in percent; "none" if there is nothing to divide by."""
    return f"{100 * hits / count:.1f} %" if count > 0 else "none"


def _gates(stage: Stage, seen: Observation) -> Iterator[GateResult]:
    yield _duration(stage, seen)
    yield _swaps(seen)
    new, old = seen.new_verdicts, seen.old_verdicts
    unhealthy = Share("of the devices with the bundle are silent or deliver nothing", len(seen.unhealthy), seen.running)
    others = Share("of the others", seen.others_unhealthy, seen.others)
    yield compare("device health", UNHEALTHY, unhealthy, [others])
    yield compare("forwarded share", FORWARDED, *_shares("forwarded", seen))
    yield compare("alarmed share", ALARMED, *_shares("alarmed", seen))
    dismissed = Share("of the forwarded samples were judged normal by the cloud", new.dismissed, new.suspicious)
    yield compare("agreement", DISMISSED, dismissed, [Share("with the bundle before", old.dismissed, old.suspicious)])
    missed = Share("of the audits were judged anomalous by the cloud", new.missed, new.audits)
    yield compare("audit misses", MISSED, missed, [Share("with the bundle before", old.missed, old.audits)])


def _duration(stage: Stage, seen: Observation) -> GateResult:
    is_over = seen.stage_s >= stage.least_s and seen.stage_samples >= stage.least_samples
    text = (
        f"{seen.stage_samples:.0f} of {stage.least_samples} samples and {seen.stage_s:.0f} of {stage.least_s:.0f} s "
        "of this stage."
    )
    return GateResult(gate="duration", outcome=Outcome.PASSED if is_over else Outcome.WAITING, text=text)


def _swaps(seen: Observation) -> GateResult:
    """Compare the devices that run the bundle with those that should, and those that tried it in vain."""
    text = f"{seen.running} of {seen.wanted} devices run the bundle"
    if seen.failed:
        names = ", ".join(seen.failed[:3]) + (" and others" if len(seen.failed) > 3 else "")
        text += f", and {len(seen.failed)} could not use it: {names}"
    if len(seen.failed) > MAX_FAILED_SHARE * max(1, seen.wanted):
        outcome = Outcome.FAILED
    elif seen.running and seen.running >= MIN_RUNNING_SHARE * seen.wanted:
        outcome = Outcome.PASSED
    else:
        outcome = Outcome.WAITING
    return GateResult(gate="swaps", outcome=outcome, text=f"{text}.")


def _shares(name: str, seen: Observation) -> tuple[Share, list[Share]]:
    def share(words: str, counts: ScreeningCounts) -> Share:
        return Share(words, getattr(counts, name), counts.screened)

    references = [share("on the same devices before", seen.before), share("on the others now", seen.rest)]
    return share(f"of the samples were {name}", seen.new), references


def compare(gate: str, limit: GateLimit, new: Share, references: Sequence[Share]) -> GateResult:
    """Return whether the share of the new bundle is within the limit of the references that have samples."""
    if new.count <= 0:
        outcome = Outcome.WAITING if limit.must_pass else Outcome.PASSED
        return GateResult(gate=gate, outcome=outcome, text="Nothing seen with the new bundle yet.")
    low, high = share_bounds(new.hits, new.count, ERROR)
    known = [reference for reference in references if reference.count > 0]
    bounds = [share_bounds(reference.hits, reference.count, ERROR) for reference in known]
    seen = "; ".join(str(share) for share in (new, *known))
    if known and all(low > limit.ratio * most + limit.slack for _, most in bounds):
        outcome, words = Outcome.FAILED, "more than allowed"
    elif not known:
        outcome, words = Outcome.PASSED, "nothing to compare with"
    elif any(high <= limit.ratio * least + limit.slack for least, _ in bounds):
        outcome, words = Outcome.PASSED, "within the limit"
    else:
        outcome = Outcome.WAITING if limit.must_pass else Outcome.PASSED
        words = "too few samples to tell"
    allowed = f"at most {limit.ratio:g} times as much plus {100 * limit.slack:g} %"
    return GateResult(gate=gate, outcome=outcome, text=f"{seen}: {words} ({allowed}).")
