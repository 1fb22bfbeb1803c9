"""State of a device: counts, verdicts, the normal buffer, bundles; and its messages on settings."""

import asyncio
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundles.cache import BundleCache
from edge.counters import NAMES, Counters
from edge.normal_buffer import NormalBuffer, load_snapshot
from edge.operation.latency import LatencyHistogram
from edge.sealing import Seal
from edge.settings import AgentSettings, UplinkSettings
from edge.uplink.events import EventReader
from edge.uplink.verdicts import VerdictStore
from shared.bundle import Bundle
from shared.errors import BundleError, BundleIntegrityError, DataError, SettingsError
from shared.samples import Decision, Verdict, new_sample_id
from shared.status import LatencyStatus
from shared.wire import verdict_to_message
from tests.edge.bundles import tabular_bundle
from tests.edge.verdict_rows import stored
from vedette.v1 import detection_pb2


def verdict(sample_id: uuid.UUID, decision: Decision = Decision.ANOMALOUS) -> Verdict:
    return Verdict(sample_id, decision, 0.01, False, (), "plant-1", time.time())


def test_counts_survive_and_never_go_down(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "c.json")
    counters.add({"samples_screened": 5})
    counters.save()
    counters.add({"samples_screened": 7})
    again = Counters(tmp_path / "c.json")
    assert again.snapshot()["samples_screened"] == 5
    again.raise_to({"samples_screened": 9, "verdicts": 1, "of another version": 3})
    again.raise_to({"samples_screened": 2})
    assert again.snapshot() == dict.fromkeys(NAMES, 0) | {"samples_screened": 9, "verdicts": 1}


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"samples_screened": "x"}', b"\xff"])
def test_counts_that_cannot_be_read_start_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.json").write_bytes(content)
    assert Counters(tmp_path / "c.json").snapshot()["samples_screened"] == 0


def test_counts_from_many_threads_add_up() -> None:
    counters = Counters()
    threads = [threading.Thread(target=lambda: [counters.add({"verdicts": 1}) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.snapshot()["verdicts"] == 4000


def test_a_verdict_counts_once_and_is_awaited_until_it_comes(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path / "v.db")
    ids = [new_sample_id() for _ in range(4)]
    store.expect([one.bytes for one in ids[:3]])
    assert store.awaited() == 3
    assert len(store.store([verdict(ids[0]), verdict(ids[3])], cursor=7)) == 2
    store.expect([ids[3].bytes])  # its verdict came before its acknowledgement
    assert store.awaited() == 2
    assert store.store([verdict(ids[0])], cursor=8) == []
    store.close()
    again = VerdictStore(tmp_path / "v.db")
    assert (again.cursor, again.awaited()) == (8, 2)
    assert again.totals() == {"verdicts": 2, "verdicts_anomalous": 2}
    assert stored(again).keys() == {ids[0].bytes, ids[3].bytes}


def test_a_verdict_without_a_p_value_stays_without_one(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path / "v.db")
    store.store([Verdict(new_sample_id()), verdict(new_sample_id())], cursor=2)
    assert dict(stored(store).values()) == {"undecided": None, "anomalous": 0.01}


def test_the_oldest_verdicts_go_when_there_are_too_many(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path / "v.db", max_verdicts=10)
    ids = [new_sample_id() for _ in range(25)]
    for number, one in enumerate(ids):
        store.store([verdict(one, Decision.NORMAL)], cursor=number)
    assert stored(store).keys() == {one.bytes for one in ids[-10:]}
    assert store.totals() == {"verdicts": 25, "verdicts_anomalous": 0}


def offer(buffer: NormalBuffer, rows: np.ndarray) -> None:
    """Rows that were accepted, and between them as many that were not and never may be kept."""
    both = np.repeat(rows, 2, axis=0)
    both[1::2] = np.nan
    buffer.offer(both, np.arange(len(both)) % 2 == 0, np.asarray)


def test_the_buffer_is_a_fair_sample_of_all_that_was_offered(tmp_path: Path) -> None:
    picked = np.zeros(1000)
    for seed in range(60):
        buffer = NormalBuffer(tmp_path / "b.npz", 100, "p", "plant", seed=seed)
        rows = np.arange(1000, dtype=np.float32).reshape(-1, 1)
        for start in range(0, 1000, 37):
            offer(buffer, rows[start : start + 37])
        buffer.save()
        picked[load_snapshot(tmp_path / "b.npz").inputs.ravel().astype(int)] += 1
    assert len(buffer) == 100
    parts = picked.reshape(10, 100).sum(axis=1)
    assert parts == pytest.approx(np.full(10, 600), rel=0.2)


def test_the_buffer_goes_on_after_a_restart_unless_its_inputs_mean_something_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "b.npz"
    buffer = NormalBuffer.open(path, 50, "p1", "plant")
    offer(buffer, np.ones((200, 3), dtype=np.float32))
    buffer.save()
    assert load_snapshot(path).seen == 200
    assert len(NormalBuffer.open(path, 50, "p1", "plant")) == 50
    assert len(NormalBuffer.open(path, 10, "p1", "plant")) == 10
    assert len(NormalBuffer.open(path, 50, "p2", "plant")) == 0
    path.write_bytes(b"PK")
    assert len(NormalBuffer.open(path, 50, "p1", "plant")) == 0
    with pytest.raises(DataError, match="no normal buffer"):
        load_snapshot(path)


def test_a_sealed_buffer_is_read_with_its_key_only(tmp_path: Path) -> None:
    path, rows = tmp_path / "b.npz", np.full((200, 3), 41.5, dtype=np.float32)
    seal, other = Seal(b"k" * 32, "normal_buffer"), Seal(b"o" * 32, "normal_buffer")
    plain = NormalBuffer.open(path, 50, "p1", "plant")
    offer(plain, rows)
    plain.save()
    assert rows[0].tobytes() in path.read_bytes()
    NormalBuffer.open(path, 50, "p1", "plant", seal).save()  # from the time before there was a key
    assert rows[0].tobytes() not in path.read_bytes()
    np.testing.assert_array_equal(load_snapshot(path, seal).inputs, rows[:50])
    assert len(NormalBuffer.open(path, 50, "p1", "plant", seal)) == 50
    for wrong in (None, other, Seal(b"k" * 32, "spool")):
        with pytest.raises(DataError, match="sealed"):
            load_snapshot(path, wrong)
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DataError, match="damaged"):
        load_snapshot(path, seal)


@pytest.mark.parametrize("text", ["", "abcd", "no hex", "ab" * 31, "ab" * 33])
def test_a_key_is_64_hexadecimal_digits(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(SettingsError, match="openssl rand -hex 32"):
        Seal.from_file(tmp_path / "key", "normal_buffer")
    with pytest.raises(SettingsError, match="no key"):
        Seal.from_file(tmp_path / "absent", "normal_buffer")


def test_fetched_bundles_are_kept_as_current_and_previous(
    tmp_path: Path, signing_key: Ed25519PrivateKey, tabular: Bundle
) -> None:
    import hashlib

    cache = BundleCache(tmp_path, [signing_key.public_key()])
    bundles = [tabular, *(tabular_bundle(signing_key, version=version) for version in (2, 3))]
    for bundle in bundles:
        data, bundle_id = bundle.archive(edge_only=True), bundle.manifest.bundle_id
        cache.partial(bundle_id).write_bytes(data)
        assert cache.accept(bundle_id, hashlib.sha256(data).digest()).manifest == bundle.manifest
        cache.make_current("plant", bundle_id)
    again = BundleCache(tmp_path, [signing_key.public_key()])
    ids = [bundle.manifest.bundle_id for bundle in bundles]
    assert [again.has(bundle_id) for bundle_id in ids] == [False, True, True]
    current = again.current("plant")
    assert current is not None
    assert current.manifest.bundle_id == ids[2]
    again.mark_failed("plant", ids[2], "no scores")
    current = BundleCache(tmp_path, [signing_key.public_key()]).current("plant")
    assert current is not None
    assert current.manifest.bundle_id == ids[1]
    assert BundleCache(tmp_path, [signing_key.public_key()]).failure(ids[2]) == "no scores"


def test_bundles_not_announced_or_not_signed_are_removed(
    tmp_path: Path, signing_key: Ed25519PrivateKey, tabular: Bundle
) -> None:
    import hashlib

    cache = BundleCache(tmp_path, [Ed25519PrivateKey.generate().public_key()])
    data, bundle_id = tabular.archive(edge_only=True), tabular.manifest.bundle_id
    part = cache.partial(bundle_id)
    part.write_bytes(data[:-1])
    with pytest.raises(BundleIntegrityError, match="not the one announced"):
        cache.accept(bundle_id, hashlib.sha256(data).digest())
    assert not part.exists()
    part.write_bytes(data)
    with pytest.raises(BundleError, match="not signed by a trusted key"):
        cache.accept(bundle_id, hashlib.sha256(data).digest())
    assert not part.exists()
    with pytest.raises(BundleError, match="is not the id of a bundle"):
        cache.partial("../../etc/passwd")


def test_quantiles_of_latencies_are_right_to_a_bin() -> None:
    histogram = LatencyHistogram()
    assert histogram.summary() == LatencyStatus(p50=None, p99=None, samples=0)
    for latency_ms in np.linspace(1, 100, 1000):
        histogram.record(float(latency_ms))
    summary = histogram.summary()
    assert summary.p50 == pytest.approx(50, rel=0.13)
    assert summary.p99 == pytest.approx(99, rel=0.13)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('state_dir = "s"\n[router]\nforward_pvalue = 0.1', "did you mean 'forward_p_value'"),
        ('state_dir = "s"\n[[sources]]\nid = "a"\nkind = "replay"\npath = "p"\nbundel = "b"', "did you mean 'bundle'"),
        ('state_dir = "s"\n[[sources]]\nid = "a"\nkind = "replay"\npath = "p"', "set bundle"),
        ('state_dir = "s"\n[[sources]]\nid = "a/b"\nkind = "replay"\npath = "p"\nbundle = "b"', "sources.0.id"),
        ('state_dir = "s"\n[uplink]\naddress = "host"', "host:port"),
        ('state_dir = "s"\n[metrics]\naddress = "9100"', "host:port"),
        ("[router]\nmode = 'cascade'", "'state_dir' is missing"),
    ],
)
def test_wrong_settings_are_named_with_their_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "edge.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"edge\.toml") as caught:
        AgentSettings.load(tmp_path / "edge.toml", {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_verdicts_read_again_after_their_table_was_lost_count_once(tmp_path: Path) -> None:
    counters = Counters()
    event = detection_pb2.Event(cursor=1, verdict=verdict_to_message(verdict(new_sample_id())))
    for name in ("verdicts.db", "a-new-one.db"):
        store = VerdictStore(tmp_path / name)
        threads: list[int] = []
        reader = EventReader(
            UplinkSettings(),
            store,
            counters,
            LatencyHistogram(),
            lambda: None,
            lambda _, threads=threads: threads.append(threading.get_ident()),
        )
        asyncio.run(reader._handle([event]))
        assert len(threads) == 1
        assert threads != [threading.get_ident()]  # learning from verdicts does not stop the uplink's loop
        assert counters.snapshot()["verdicts"] == 1
        assert counters.snapshot()["verdicts_anomalous"] == 1
        store.close()


def test_an_unreadable_table_of_verdicts_shows_the_last_known_ones(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path / "verdicts.db")
    store.expect([new_sample_id().bytes])
    assert store.awaited() == 1
    store.close()  # as a damaged file does it, each statement raises from now on
    assert store.awaited() == 1
