"""Gates between the stages of a rollout: each says in one sentence what it saw.

A share of the new bundle is compared with the same share of the bundle before: on the same devices earlier, and on the
rest of the fleet now. The higher of the two counts, so that neither unusual devices nor a change of all data is taken
for a fault of the bundle. The limit is `ratio` times that share plus `slack`. A gate fails if the share certainly
exceeds the limit and passes if it certainly does not, both by bounds that hold at every look (cloud.rollouts.bounds);
between them it waits for more samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from cloud.rollouts.bounds import count_until_below, share_bounds
from cloud.rollouts.limits import DEFAULT_LIMITS, GateLimit, RolloutLimits
from cloud.rollouts.observation import Observation, ScreeningCounts, Tally, tally_without_most, without_most
from cloud.rollouts.stages import Stage

ERROR = 0.0025
"""Probability that the bounds of a share are ever wrong; a gate halts a good bundle at most twice as often."""

MIN_RUNNING_SHARE = 0.8  # of the devices of a stage, before the next begins


_VERDICTS = {
    "agreement": ("dismissed", "suspicious", "of the forwarded samples were judged normal by the cloud"),
    "audit misses": ("missed", "audits", "of the audits were judged anomalous by the cloud"),
}
"""Fields of a Tally and words of each gate of verdicts."""
_UNITS = {"agreement": "forwarded samples", "audit misses": "audits"}


class Outcome(StrEnum):
    """Decision of a gate."""

    PASSED = "passed"
    WAITING = "waiting"
    FAILED = "failed"


class GateFigures(BaseModel):
    """Figures that a gate compares.

    Attributes:
        value: Share seen with the new bundle, in [0, 1].
        low, high: Bounds of that share that hold at every look.
        limit: Largest share allowed; None without anything to compare with.
        count: Number of `unit` that the share rests on.
        needed: Number of `unit` at which the gate passes if the share stays as it is; None if unknown.
        remaining_s: Seconds until then at the present rate; None if unknown.
    """

    model_config = ConfigDict(frozen=True)

    unit: str
    value: float
    low: float
    high: float
    limit: float | None
    count: float
    needed: float | None = None
    remaining_s: float | None = None


class GateResult(BaseModel):
    """Decision of one gate, a sentence with the figures that it saw, and the figures (None: nothing seen yet)."""

    model_config = ConfigDict(frozen=True)

    gate: str
    outcome: Outcome
    text: str
    figures: GateFigures | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A share `hits` / `count` of `unit`, and the words for it, such as "on the others now".

    `rate_per_s`: growth of `count`; 0 while unknown.
    """

    words: str
    hits: float
    count: float
    unit: str = "samples"
    rate_per_s: float = 0.0

    def __str__(self) -> str:
        return f"{percent(self.hits, self.count)} {self.words} ({self.hits:.0f} of {self.count:.0f})"


def gates(stage: Stage, seen: Observation, limits: RolloutLimits = DEFAULT_LIMITS) -> tuple[GateResult, ...]:
    """Return the results of all gates of a stage."""
    return tuple(_gates(stage, seen, limits))


def halting(results: Sequence[GateResult]) -> str:
    """Return the sentences of the gates that failed, or an empty text."""
    return " ".join(result.text for result in results if result.outcome is Outcome.FAILED)


def all_passed(results: Sequence[GateResult]) -> bool:
    """Return whether the next stage may begin."""
    return all(result.outcome is Outcome.PASSED for result in results)


def percent(hits: float, count: float) -> str:
    """Return a share in percent; "none" if there is nothing to divide by."""
    return f"{100 * hits / count:.1f} %" if count > 0 else "none"


def _gates(stage: Stage, seen: Observation, limits: RolloutLimits) -> Iterator[GateResult]:
    yield _duration(stage, seen)
    yield _swaps(seen, limits)
    words = "of the devices with the bundle are silent or deliver nothing"
    unhealthy = Share(words, len(seen.unhealthy), seen.running, "devices")
    others = Share("of the others", seen.others_unhealthy, seen.others)
    yield compare("device health", limits.max_unhealthy, unhealthy, [others])
    yield _screening("forwarded", limits.max_forwarded, seen, limits)
    yield _screening("alarmed", limits.max_alarmed, seen, limits)
    yield _verdicts("agreement", limits.max_dismissed, seen, limits)
    yield _verdicts("audit misses", limits.max_missed, seen, limits)


def needed_devices(seen: Observation, limits: RolloutLimits) -> int:
    """Return how many devices must agree to halt: `min_devices`, or all of a smaller stage."""
    return max(1, min(limits.min_devices, seen.wanted))


def _duration(stage: Stage, seen: Observation) -> GateResult:
    is_over = seen.stage_s >= stage.least_s and seen.stage_samples >= stage.least_samples
    text = (
        f"{seen.stage_samples:.0f} of {stage.least_samples} samples and {seen.stage_s:.0f} of {stage.least_s:.0f} s "
        "of this stage."
    )
    outcome = Outcome.PASSED if is_over else Outcome.WAITING
    return GateResult(gate="duration", outcome=outcome, text=text, figures=_progress(stage, seen))


def _progress(stage: Stage, seen: Observation) -> GateFigures:
    """Return the share of the stage's samples that were screened, and the time until samples and seconds suffice."""
    missing = max(0.0, stage.least_samples - seen.stage_samples)
    samples_s = missing / rate if missing and (rate := _rate_per_s(seen)) else None if missing else 0.0
    share = min(1.0, seen.stage_samples / stage.least_samples) if stage.least_samples else 1.0
    return GateFigures(
        unit="samples",
        value=share,
        low=share,
        high=share,
        limit=None,
        count=seen.stage_samples,
        needed=stage.least_samples,
        remaining_s=None if samples_s is None else max(samples_s, stage.least_s - seen.stage_s, 0.0),
    )


def _rate_per_s(seen: Observation) -> float:
    """Return the samples a second that the new bundle has screened in this stage."""
    return seen.stage_samples / seen.stage_s if seen.stage_s > 0 else 0.0


def _swaps(seen: Observation, limits: RolloutLimits) -> GateResult:
    """Compare the devices that run the bundle with those that should, and those that tried it in vain."""
    text = f"{seen.running} of {seen.wanted} devices run the bundle"
    if seen.failed:
        names = ", ".join(seen.failed[:3]) + (" and others" if len(seen.failed) > 3 else "")
        text += f", and {len(seen.failed)} could not use it: {names}"
    too_many, needed = len(seen.failed) > limits.max_failed * max(1, seen.wanted), needed_devices(seen, limits)
    if too_many and len(seen.failed) < needed:
        text += f"; fewer than {needed} devices halt nothing"
    if too_many and len(seen.failed) >= needed:
        outcome = Outcome.FAILED
    elif seen.running and seen.running >= MIN_RUNNING_SHARE * seen.wanted:
        outcome = Outcome.PASSED
    else:
        outcome = Outcome.WAITING
    share = len(seen.failed) / max(1, seen.wanted)
    figures = GateFigures(
        unit="devices", value=share, low=share, high=share, limit=limits.max_failed, count=float(seen.wanted)
    )
    return GateResult(gate="swaps", outcome=outcome, text=f"{text}.", figures=figures if seen.wanted else None)


def _screening(name: str, limit: GateLimit, seen: Observation, limits: RolloutLimits) -> GateResult:
    """Compare a share of the screened samples; it must also be too large without the devices that raise it most."""

    def share(words: str, counts: ScreeningCounts) -> Share:
        return Share(words, getattr(counts, name), counts.screened)

    references = [share("on the same devices before", seen.before), share("on the others now", seen.rest)]
    words, gate = f"of the samples were {name}", f"{name} share"
    left_out = needed_devices(seen, limits) - 1
    new = replace(share(words, seen.new), rate_per_s=_rate_per_s(seen))
    result = compare(gate, limit, new, references, must_pass=True)
    if result.outcome is not Outcome.FAILED or not left_out:
        return result
    without = share(words, without_most(seen.new_by_device, name, left_out))
    if compare(gate, limit, without, references, must_pass=True).outcome is Outcome.FAILED:
        return result
    text = f"{result.text} Fewer than {left_out + 1} devices halt nothing: look at those with the most samples {name}."
    return result.model_copy(update={"outcome": Outcome.WAITING, "text": text})


def _verdicts(gate: str, limit: GateLimit, seen: Observation, limits: RolloutLimits) -> GateResult:
    """Compare a share of the verdicts; it must also be too large without the devices that raise it most."""
    hits, count, words = _VERDICTS[gate]

    def share(words: str, tally: Tally) -> Share:
        return Share(words, getattr(tally, hits), getattr(tally, count), _UNITS.get(gate, "samples"))

    references = [share("with the bundle before", seen.old_verdicts)]
    enough = seen.running >= needed_devices(seen, limits)
    left_out = needed_devices(seen, limits) - 1
    result = compare(gate, limit, share(words, seen.new_verdicts), references, may_fail=enough)
    if result.outcome is not Outcome.FAILED or not left_out:
        return result
    without = share(words, tally_without_most(seen.new_verdicts_by_device, hits, left_out))
    if compare(gate, limit, without, references).outcome is Outcome.FAILED:
        return result
    text = (
        f"{result.text} Fewer than {left_out + 1} devices halt nothing: look at the samples of the devices with most."
    )
    return result.model_copy(update={"outcome": Outcome.WAITING, "text": text})


def compare(
    gate: str,
    limit: GateLimit,
    new: Share,
    references: Sequence[Share],
    *,
    must_pass: bool = False,
    may_fail: bool = True,
) -> GateResult:
    """Return whether the share of the new bundle is within the limit of the references that have samples.

    A share that `must_pass` holds the stage until it is certainly within the limit; another one can only fail. One that
    must not fail (`may_fail`) holds the stage instead.
    """
    if new.count <= 0:
        outcome = Outcome.WAITING if must_pass else Outcome.PASSED
        return GateResult(gate=gate, outcome=outcome, text="Nothing seen with the new bundle yet.")
    low, high = share_bounds(new.hits, new.count, ERROR)
    known = [reference for reference in references if reference.count > 0]
    bounds = [share_bounds(reference.hits, reference.count, ERROR) for reference in known]
    seen = "; ".join(str(share) for share in (new, *known))
    if known and all(low > limit.ratio * most + limit.slack for _, most in bounds):
        outcome, words = (Outcome.FAILED if may_fail else Outcome.WAITING), "more than allowed"
    elif not known:
        outcome, words = Outcome.PASSED, "nothing to compare with"
    elif any(high <= limit.ratio * least + limit.slack for least, _ in bounds):
        outcome, words = Outcome.PASSED, "within the limit"
    else:
        outcome = Outcome.WAITING if must_pass else Outcome.PASSED
        words = "too few samples to tell"
    allowed = f"at most {limit.ratio:g} times as much plus {100 * limit.slack:g} %"
    certain = max((limit.ratio * least + limit.slack for least, _ in bounds), default=None)
    needed = count_until_below(new.hits, new.count, certain, ERROR) if certain is not None else None
    figures = GateFigures(
        unit=new.unit,
        value=new.hits / new.count,
        low=low,
        high=high,
        limit=max((limit.ratio * each.hits / each.count + limit.slack for each in known), default=None),
        count=new.count,
        needed=needed,
        remaining_s=(needed - new.count) / new.rate_per_s if needed is not None and new.rate_per_s > 0 else None,
    )
    return GateResult(gate=gate, outcome=outcome, text=f"{seen}: {words} ({allowed}).", figures=figures)
