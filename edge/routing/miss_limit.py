"""Missed anomalies of one source: their bound from audits, and the forward threshold that keeps `max_miss_rate`."""

import sqlite3

from edge.routing.budget import UploadBudget
from edge.routing.router import Router
from edge.uplink.audit_ledger import AuditCounts, AuditLedger
from shared.logs import EventLog, Throttle
from shared.miss_bound import bound_of
from shared.miss_control import THRESHOLDS, audits_needed, thresholds_that_hold, window_audits
from shared.status import MissStatus
from shared.texts import percent_text

MIN_COUNTED = 1000.0  # samples until the share of a threshold is known
REFRESH_S = 3600.0  # audits become late with time alone

log = EventLog("router")


class MissLimit:
    """Follows the verdicts of one source; `refresh` sets the threshold of its router.

    A threshold is used while two tests show that it holds the limit: on all verdicts of the bundle, and on the recent
    ones. A new bundle starts new counts, with `forward_p_value` in force.
    """

    def __init__(self, router: Router, budget: UploadBudget, ledger: AuditLedger, source_id: str) -> None:
        self._router, self._budget, self._ledger, self._source_id = router, budget, ledger, source_id
        self._read: tuple[str, int, int, float] | None = None
        self._tested = 0
        self._needed: int | None = None
        self._throttle = Throttle()
        self._bundle_id = ""
        self.counts = AuditCounts()
        self.words, self.problem = "", ""

    def refresh(self, bundle_id: str, now_s: float) -> None:
        """Read the counts again if they changed, and choose the threshold."""
        if bundle_id != self._bundle_id:
            self._begin(bundle_id)
        limit = self._router.settings.max_miss_rate
        state = bundle_id, self._ledger.version, int(now_s // REFRESH_S), limit
        try:
            if state != self._read:
                self.counts, self._read = self._ledger.counts(self._source_id, bundle_id), state
                if limit > 0:
                    self._test(limit)
                    if self.counts.since_restart >= window_audits(limit):
                        self._ledger.restart(self._source_id, bundle_id)
        except sqlite3.Error as error:
            if self._throttle.allow("counts"):
                log.error("audits_unreadable", source=self._source_id, error=str(error))
        self.words, self.problem = self._choose()

    def status(self) -> MissStatus:
        """Return the figures of the bundle that runs."""
        counts = self.counts
        bound = bound_of(counts.anomalous + counts.without_decision, counts.audits) if counts.audits else None
        return MissStatus(
            audits=counts.audits,
            anomalous=counts.anomalous,
            unknown=counts.without_decision,
            pending=counts.pending,
            at_most_share=bound,
            audit_share=self._router.audit_share,
            forward_p_value=self._router.forward_p_value,
            limit=self._router.settings.max_miss_rate,
            limit_words=self.words,
        )

    def _begin(self, bundle_id: str) -> None:
        """Forget what is known of another bundle: the counts of this one may not be readable yet."""
        self._bundle_id, self._read = bundle_id, None
        self.counts, self._tested, self._needed = AuditCounts(), 0, None
        self._router.threshold = None
        self._router.p_value_counts[:] = 0.0

    def _test(self, limit: float) -> None:
        """Test the thresholds on all counts and on the recent ones."""
        tests = (self.counts.evidence, self.counts.recent)
        self._tested = min(int(thresholds_that_hold(each, limit)) for each in tests)
        needed = [0] if self._tested else [audits_needed(each, limit) for each in tests]
        self._needed = None if None in needed else max(number for number in needed if number is not None)

    def _choose(self) -> tuple[str, str]:
        """Set the threshold; return what to say of the limit, and the problem, empty without one."""
        settings = self._router.settings
        limit = settings.max_miss_rate
        if limit <= 0 or settings.mode != "cascade":
            self._router.threshold = None
            return "", ""
        name = f"max_miss_rate {percent_text(limit)}"
        if not self._tested:
            self._router.threshold = None
            return f"{name}: {self._until_it_holds(limit)}", ""
        wanted = float(THRESHOLDS[self._tested - 1])
        share, carried = self._share_up_to(wanted), self._budget.carried_share()
        if share is None and self._budget.is_limited:
            self._router.threshold = None
            words = (
                f"{name} asks for p-values up to {wanted:.3g}: {MIN_COUNTED:,.0f} samples show whether the budget "
                f"carries them; until then {self._in_force}"
            )
            return words, ""
        if share is None or share <= carried:
            self._router.threshold = wanted
            part = "" if share is None else f", {percent_text(share)} of all"
            words = (
                f"{name} was held (95 %) over the last {self.counts.recent_audits:,} audits, and since the bundle "
                f"started: {self._in_force}{part}"
            )
            return words, ""
        self._router.threshold = self._carried_threshold(carried)
        problem = (
            f"{name} needs {percent_text(share)} of the samples, and the budget carries {percent_text(carried)} beside "
            f"the audits: raise max_samples_per_s and max_bytes_per_s {share / max(carried, 1e-6):.2g} times, or raise "
            "max_miss_rate"
        )
        return problem, problem

    @property
    def _in_force(self) -> str:
        return f"samples with p-values up to {self._router.forward_p_value:.3g} are forwarded"

    def _until_it_holds(self, limit: float) -> str:
        """Return what is missing before a threshold is known to hold the limit."""
        in_force = self._in_force
        if self._router.settings.audit_share <= 0:
            return f"it needs audits, so raise audit_share above 0; until then {in_force}"
        counts = self.counts
        share = (counts.anomalous + counts.without_decision) / counts.audits if counts.audits else 0.0
        more = "no number of audits shows it"
        if self._needed is not None:
            more = f"at least {self._needed:,} more audits are needed"
        doubt = ""
        if share >= limit and counts.audits * limit >= 1:
            doubt = f" ({percent_text(share)} of the audits so far were anomalous or without a decision: raise it)"
        return f"{more}{doubt}; until then {in_force}"

    def _share_up_to(self, p_value: float) -> float | None:
        """Return the share of recent samples with at most this p-value; None while too few are counted."""
        counts = self._router.p_value_counts
        if counts.sum() < MIN_COUNTED:
            return None
        place = int((p_value < THRESHOLDS).sum())
        return float(counts[place + 1 :].sum() / counts.sum())

    def _carried_threshold(self, carried: float) -> float:
        """Return the largest threshold whose share the budget carries."""
        for p_value in THRESHOLDS.tolist():
            share = self._share_up_to(p_value)
            if share is not None and share <= carried:
                return float(p_value)
        return float(THRESHOLDS[-1])
