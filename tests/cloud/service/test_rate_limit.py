"""Rate limits by key."""

import pytest

from cloud.service import rate_limit
from cloud.service.rate_limit import RateLimit, address_of


def test_attempts_beyond_the_burst_wait_and_success_costs_nothing():
    now_s = 0.0
    limit = RateLimit(60, 2, lambda: now_s)
    assert [limit.wait_s("a"), limit.wait_s("a"), limit.wait_s("b")] == [0, 0, 0]
    assert limit.wait_s("a") == pytest.approx(1.0)
    now_s = 0.75
    assert limit.wait_s("a") == pytest.approx(0.25)
    now_s = 1.0
    assert limit.wait_s("a") == 0
    limit.give_back("a")
    assert limit.wait_s("a") == 0
    now_s = 1000.0
    assert [limit.wait_s("a") for _ in range(3)] == [0, 0, 1]


def test_an_amount_beyond_the_burst_is_a_debt_until_it_is_paid():
    now_s = 0.0
    limit = RateLimit(60 * 10, 100, lambda: now_s)  # 10 a second
    limit.spend("a", 90)
    assert limit.debt_s("a") == 0
    limit.spend("a", 60)
    assert limit.debt_s("a") == pytest.approx(5.0)
    assert limit.debt_s("b") == 0
    now_s = 4.0
    assert limit.debt_s("a") == pytest.approx(1.0)
    now_s = 6.0
    assert limit.debt_s("a") == 0


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(rate_limit, "MAX_ADDRESSES", 3)
    limit = RateLimit(60, 1, lambda: 0.0)
    for number in range(10):
        limit.wait_s(str(number))
    assert len(limit._buckets) == 3


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:5012", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:5012", "2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5012", "fe80::/64"),
        ("unix:", "unix:"),
    ],
)
def test_a_peer_is_known_by_its_address_and_of_ipv6_by_its_network(peer, address):
    assert address_of(peer) == address
