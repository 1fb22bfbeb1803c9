"""Details of the audit log in words."""

from cloud.console.system.audit import details_words
from cloud.store.audit import AuditEntry


def test_details_are_words_with_units_and_times() -> None:
    details = {
        "since_s": None,
        "max_bytes_per_s": 1_234_567.0,
        "reason": "ok, limits (none)",
        "expires_at_s": 1_797_670_000.0,
        "rules": [{"name": "x_1", "keep_s": 30.0, "is_on": True}],
        "settings": {"audit_share": 0.01, "max_miss_rate": None},
        "devices": [],
        "claimed_at_s": 1e300,
    }
    entry = AuditEntry(1, 0.0, "user:ada", "group.changed", "presses", details)
    assert details_words(entry) == (
        'since s none, max bytes per s 1234567, reason "ok, limits (none)", '
        "expires at 2026-12-19 08:46:40 UTC, rules (name x_1, keep 30 s, is on yes), "
        "settings (audit share 0.01, max miss rate none), devices none, claimed at 1e+300 s"
    )
