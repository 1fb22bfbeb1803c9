"""Tests that `kill -9` at random points of an agent with several sources loses and repeats nothing."""

import csv
import itertools
import random
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from shared.bundle import Bundle
from shared.images import encode_png
from tests.edge.bundles import SIDE, normal_rows
from tests.edge.cloud_double import CloudDouble
from tests.edge.conftest import Enrol
from tests.edge.device import Device
from tests.edge.forked import Forked, agent

pytestmark = pytest.mark.system

KILLS, MANY_KILLS = 40, 200


class Writer:
    """Add rows to a file and pictures to a folder, as other programs do, until stopped."""

    def __init__(self, table: Path, folder: Path) -> None:
        self.table, self.folder = table, folder
        self.starts: list[int] = []  # of each row in the file
        self.pictures: list[str] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(10)

    def _run(self) -> None:
        picture = encode_png(np.full((SIDE, SIDE, 3), 128, np.uint8))
        rows: Iterator[list[float]] = itertools.cycle(normal_rows(1000, seed=3).tolist())
        with self.table.open("a", buffering=1) as file:
            file.write("heat,load,flow\n")
            while not self._done.wait(0.02):
                for row in itertools.islice(rows, 4):
                    self.starts.append(file.tell())
                    file.write(",".join(map(str, row)) + "\n")
                name = f"{len(self.pictures):05}.png"
                (self.folder / f"{name}.part").write_bytes(picture)
                (self.folder / f"{name}.part").rename(self.folder / name)
                self.pictures.append(name)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    (tmp_path / "in").mkdir()
    writer = Writer(tmp_path / "growing.csv", tmp_path / "in")
    yield writer
    writer.stop()


@pytest.fixture
def busy(device: Device, writer: Writer, enrol: Enrol, cloud: CloudDouble, images: Bundle, tmp_path: Path) -> Device:
    """A device that sends all it sees: a tail and a watched folder, which know where they were, and a table's rows,
    which come again and again."""
    enrol(cloud.address)
    images.save(tmp_path / "door.bundle")
    table = device.settings["sources"][0]
    common = {"artefact": "int8_onnxruntime", "poll_s": 0.01}
    log = {"id": "log", "kind": "tail", "path": writer.table, "bundle": table["bundle"], "batch_size": 16}
    door = {"id": "door", "kind": "images", "path": writer.folder, "bundle": tmp_path / "door.bundle", "watch": True}
    door |= {"settle_s": 0.02, "batch_size": 4, "after": "move", "done": tmp_path / "done"}
    device.settings["sources"] = [
        table | {"rate_per_s": 300, "loop": True, "batch_size": 16},
        log | common,
        door | common,
    ]
    device.settings["router"] = {"mode": "cloud_only"}
    device.settings["uplink"] |= {"max_batch_age_ms": 5, "batch_samples": 32}
    device.settings["metrics"] = {"address": ""}
    device.settings["drain_timeout_s"] = 300  # on a busy machine thousands of verdicts wait to be read
    device.write()
    return device


@pytest.mark.parametrize("kills", [KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.long)])
def test_kills_lose_no_sample_and_count_none_twice(
    busy: Device, cloud: CloudDouble, writer: Writer, tmp_path: Path, kills: int
) -> None:
    chance = random.Random(kills)
    for number in range(kills):
        busy.process = process = Forked(busy.log, agent, busy.config)
        if number % 2:  # while it starts, or soon after
            time.sleep(chance.uniform(0.0, 0.2))
        else:  # while it works
            requests = cloud.requests
            busy.until(lambda requests=requests: cloud.requests > requests)
            time.sleep(chance.uniform(0.0, 0.1))
        process.kill()
        assert process.poll() == -9, busy.text()  # it had not ended by itself
    writer.stop()
    spooled_by_others = _spooled(busy)
    busy.process = Forked(busy.log, agent, busy.config)
    origins = Counter[str]()

    def is_all_there() -> bool:
        origins.clear()
        origins.update(sample.origin for sample in list(cloud.samples.values()) if sample.source_id != "plant")
        return len(origins) >= len(writer.starts) + len(writer.pictures) and not any(writer.folder.iterdir())

    busy.until(is_all_there, max(60.0, 2.0 * kills))  # each kill leaves samples of its run in the spool
    assert busy.terminate() == 0, busy.text()
    assert origins == Counter([*(f"growing.csv@{start}" for start in writer.starts), *writer.pictures])
    busy.settings["sources"][0] |= {"loop": False}  # and now all that is left, the verdicts as well
    busy.settings["sources"][1:] = []
    assert busy.run("--until-done", timeout_s=300) == 0, busy.text()
    _check_counts(busy, cloud)
    assert spooled_by_others <= set(cloud.samples)
    assert len(list((tmp_path / "done").iterdir())) == len(writer.pictures)
    assert [path.name for path in busy.state.iterdir() if path.name.endswith(".new")] == []


def _spooled(device: Device) -> set[bytes]:
    with closing(sqlite3.connect(device.state / "spool.db")) as connection:
        return {row[0] for row in connection.execute("SELECT sample_id FROM samples")}


def _check_counts(device: Device, cloud: CloudDouble) -> None:
    """Check that every routed sample is in the cloud once, and that the device's counts agree."""
    with Path(device.settings["screening_log"]["path"]).open() as file:
        logged = [row["sample_id"] for row in csv.DictReader(file)]
    assert len(logged) == len(set(logged))
    assert set(logged) <= cloud.sample_ids()
    counts = device.counters()
    assert counts["samples_forwarded"] + counts["samples_audited"] == counts["samples_spooled"]
    assert counts["samples_screened"] == counts["samples_spooled"]
    assert counts["samples_spooled"] == counts["samples_acknowledged"] == len(cloud.samples)
    assert counts["verdicts"] == len(cloud.samples)
    assert (counts["samples_dropped"], counts["samples_refused"], counts["samples_rejected"]) == (0, 0, 0)
    assert device.status()["verdicts"]["awaited"] == device.status()["spool"]["samples"] == 0
    assert all(uuid.UUID(bytes=sample_id).version == 7 for sample_id in cloud.samples)
