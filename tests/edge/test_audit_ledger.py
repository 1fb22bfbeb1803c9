"""Verdicts on audits are counted once, and unknown ones as anomalous."""

import sqlite3
import time
import uuid
from pathlib import Path

import pytest

from edge.uplink.audit_ledger import KEPT_BUNDLES, LATE_S, NOT_COUNTED, AuditCounts, TrackedSample
from edge.uplink.verdicts import VerdictStore
from shared.miss_control import cells_of
from shared.samples import Decision, Verdict, new_sample_id

CELL = int(cells_of(0.5))


def audit(sample_id: uuid.UUID, cell: int = NOT_COUNTED) -> TrackedSample:
    return TrackedSample(sample_id.bytes, cell, True, 1.0)


def of_age(age_s: float) -> uuid.UUID:
    milliseconds = int((time.time() - age_s) * 1000)
    return uuid.UUID(bytes=milliseconds.to_bytes(6, "big") + new_sample_id().bytes[6:])


def figures(counts: AuditCounts) -> tuple[int, int, int, int]:
    return counts.audits, counts.anomalous, counts.without_decision, counts.pending


@pytest.fixture
def store(tmp_path: Path) -> VerdictStore:
    return VerdictStore(tmp_path / "verdicts.db")


def test_audits_count_with_their_verdicts_and_for_the_bundle_that_screened_them(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path / "verdicts.db")
    ids = [new_sample_id() for _ in range(4)]
    store.audits.note("cam", "press-1", [audit(each) for each in ids])
    assert figures(store.audits.counts("cam", "press-1")) == (0, 0, 0, 4)
    decisions = (Decision.NORMAL, Decision.ANOMALOUS, Decision.UNDECIDED)
    verdicts = [Verdict(each, decision) for each, decision in zip(ids, decisions, strict=False)]
    store.store([*verdicts, Verdict(new_sample_id(), Decision.ANOMALOUS)], cursor=1)
    store.store(verdicts, cursor=2)  # read again
    store.close()
    again = VerdictStore(tmp_path / "verdicts.db")
    assert figures(again.audits.counts("cam", "press-1")) == (3, 1, 1, 1)
    assert figures(again.audits.counts("cam", "press-2")) == (0, 0, 0, 0)
    assert figures(again.audits.counts("door", "press-1")) == (0, 0, 0, 0)
    again.close()


def test_an_audit_without_a_verdict_for_a_day_counts_as_anomalous_until_it_comes(store: VerdictStore) -> None:
    late, young = of_age(LATE_S + 60), of_age(LATE_S - 60)
    store.audits.note("cam", "press-1", [audit(late, CELL), audit(young, CELL)])
    counts = store.audits.counts("cam", "press-1")
    assert figures(counts) == (1, 0, 1, 1)
    assert counts.evidence.audits[CELL].tolist() == [0.0, 1.0]
    store.store([Verdict(late, Decision.NORMAL)], cursor=1)
    counts = store.audits.counts("cam", "press-1")
    assert figures(counts) == (1, 0, 0, 1)
    assert counts.evidence.audits[CELL].tolist() == [1.0, 0.0]


def test_an_audit_that_could_not_be_sent_counts_as_anomalous(store: VerdictStore) -> None:
    store.audits.note("cam", "press-1", [TrackedSample(b"", CELL, True, 1.0)])
    assert figures(store.audits.counts("cam", "press-1")) == (1, 0, 1, 0)


def test_a_verdict_that_came_first_counts_at_once(store: VerdictStore) -> None:
    early = new_sample_id()
    store.store([Verdict(early, Decision.NORMAL)], cursor=1)
    store.audits.note("cam", "press-1", [audit(early)])
    assert figures(store.audits.counts("cam", "press-1")) == (1, 0, 0, 0)


def test_forwarded_samples_are_evidence_and_no_audits(store: VerdictStore) -> None:
    forwarded, cell = new_sample_id(), int(cells_of(0.01))
    store.audits.note("cam", "press-1", [TrackedSample(forwarded.bytes, cell, False, 0.02)])
    store.store([Verdict(forwarded, Decision.ANOMALOUS)], cursor=1)
    counts = store.audits.counts("cam", "press-1")
    assert figures(counts) == (0, 0, 0, 0)
    assert counts.evidence.parts[cell].tolist() == [0.0, 0.02]


def test_noted_audits_survive_a_transaction_that_fails(store: VerdictStore) -> None:
    lost, sent = TrackedSample(b"", CELL, True, 1.0), new_sample_id()
    store.audits.note("cam", "press-1", [lost, audit(sent, CELL)])
    connection = store._connection
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        store.store([Verdict(sent, Decision.NORMAL)], cursor=1)
    assert figures(store.audits.counts("cam", "press-1")) == (1, 0, 1, 1), "the disk refuses, and counts are read"
    connection.execute("PRAGMA query_only = OFF")
    store.store([Verdict(sent, Decision.NORMAL)], cursor=1)
    counts = store.audits.counts("cam", "press-1")
    assert figures(counts) == (2, 0, 1, 0)
    assert counts.evidence.audits[CELL].tolist() == [1.0, 1.0]


def test_only_the_newest_bundles_of_a_source_are_kept(store: VerdictStore) -> None:
    for version in range(KEPT_BUNDLES + 2):
        store.audits.note("cam", f"press-{version}", [TrackedSample(b"", CELL, True, 1.0)])
    kept = [store.audits.counts("cam", f"press-{version}").audits for version in range(KEPT_BUNDLES + 2)]
    assert kept == [0, 0, *[1] * KEPT_BUNDLES]
