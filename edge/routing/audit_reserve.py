"""Reserve of the upload budget for audits, so that each accepted sample is audited with a known probability."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

AUDIT_PART = 0.5  # of the budget that audits may take at most
BORROWED_AUDITS = 4  # audits that a small bucket may pay for from the tokens that come next
_KEPT_PART = 0.75  # of a bucket that the reserve may take
_EASED = 0.8  # of the audits' part that must do before the share is raised again
_MOST_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class AuditNeed:
    """Load of one source: samples a second, the configured share of audits, and bytes of an audit and of a sample.

    The sizes are those of messages, 0 while unknown.
    """

    rate_per_s: float
    share: float
    audit_bytes: float = 0.0
    sample_bytes: float = 0.0


def kept_tokens(per_s: float, each: float, burst_s: float, capacity: float) -> float:
    """Return the tokens of a bucket that suspicious samples must leave to audits.

    Args:
        per_s: Expected audits a second, at the share in force.
        each: Tokens of one audit: 1, or its bytes.
        burst_s: Seconds of unused budget that the bucket saves up; a batch that takes longer is not expected.
        capacity: Tokens of the full bucket.
    """
    expected = per_s * burst_s
    wanted = (expected + 4.0 * math.sqrt(expected) + BORROWED_AUDITS) * each if per_s > 0 else 0.0
    return max(0.0, min(wanted, _KEPT_PART * capacity, capacity - each))


def halvings(load: float, before: int) -> int:
    """Return how often the configured share is halved so that audits fit into their part of the budget.

    Args:
        load: Ratio of the expected audits, at the configured share, to those that the budget carries.
        before: Halvings so far; fewer are only returned once there is some room, so that the share does not flap.
    """
    count = max(0, math.ceil(math.log2(load))) if load > 0 else 0
    if count < before and load > _EASED * 2.0 ** (before - 1):
        return before
    return min(count, _MOST_HALVINGS)


def carried_share(needs: Iterable[AuditNeed], part: float, samples_per_s: float, bytes_per_s: float) -> float:
    """Return the share of all samples that can be forwarded beside the audits, in [0, 1]; a budget of 0 is no limit."""
    needs = tuple(needs)
    share = 1.0
    for per_s, audit_sizes, sizes in (
        (samples_per_s, [1.0] * len(needs), [1.0] * len(needs)),
        (bytes_per_s, [need.audit_bytes for need in needs], [need.sample_bytes for need in needs]),
    ):
        if per_s <= 0:
            continue
        audits = sum(part * n.share * n.rate_per_s * size for n, size in zip(needs, audit_sizes, strict=True))
        all_of_them = sum(need.rate_per_s * size for need, size in zip(needs, sizes, strict=True))
        if all_of_them > 0:
            share = min(share, max(0.0, per_s - audits) / all_of_them)
    return share
