"""Generated store of millions of judged samples, for benchmarks of the console and of retention.

Devices take turns, each with one source. The newest sample arrived at `END_S`, and one arrived every `STEP_S` seconds
before it. Nothing has the modality `video` or the route `accept`, so that these filters match no row.
"""

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from cloud.store.migrate import migrate
from cloud.store.schema import HEARTBEAT_INTEGERS, samples, verdicts
from cloud.store.sqlite.store import DATABASE_FILE

DEVICES = 500
END_S, STEP_S = 1_800_000_000.0, 0.5
CHUNK = 50_000
RARE = 50_000  # one of so many samples is undecided
_MODALITIES = ("tabular", "series", "image")
_OPINIONS = json.dumps(
    [
        {"analyzer": name, "score": 1.25, "p_value": 0.004, "extrapolated": False}
        for name in ("knn", "score_norm", "time_estimation")
    ]
)
_CONTRIBUTIONS = json.dumps([{"name": "pressure", "share": 0.75}, {"name": "speed", "share": 0.25}])


def make_store(folder: Path, count: int, *, devices: int = DEVICES, waiting: int = 1000) -> None:
    """Make a new store in the folder with `count` verdicts of `devices` devices, and `waiting` samples without one."""
    folder.mkdir(parents=True, exist_ok=True)
    migrate(folder)
    with closing(sqlite3.connect(folder / DATABASE_FILE, isolation_level=None)) as connection:
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "cache_size = -1000000"):
            connection.execute(f"PRAGMA {pragma}")
        _add_devices(connection, devices)
        total = count + waiting
        for first in range(1, total + 1, CHUNK):
            numbers = range(first, min(first + CHUNK, total + 1))
            connection.execute("BEGIN")
            rows = [_sample(number, total, devices, judged=number <= count) for number in numbers]
            _insert(connection, "samples", rows, samples.c.keys())
            judged = [_verdict(row) for row in rows if row["judged"]]
            _insert(connection, "verdicts", judged, verdicts.c.keys())
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def device_name(number: int) -> str:
    """Return the id of a device, numbered from 0."""
    return f"device-{number:05d}"


def _add_devices(connection: sqlite3.Connection, count: int) -> None:
    running = [{"source_id": "line-1", "bundle_name": "press", "bundle_id": "press-1-00000000", "artefact": "int8"}]
    connection.execute("BEGIN")
    for number in range(count):
        connection.execute(
            "INSERT INTO devices (device_id, enrolled_at_s, certificate_serial, certificate_expires_at_s)"
            " VALUES (?, ?, '1f', ?)",
            (device_name(number), END_S - 9e7, END_S + 9e7),
        )
        names = ["device_id", "received_at_s", "agent_version", *HEARTBEAT_INTEGERS, "running", "warnings"]
        values = [device_name(number), END_S, "0.1.0", *([1000] * len(HEARTBEAT_INTEGERS)), json.dumps(running), "[]"]
        marks = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO heartbeats ({', '.join(names)}) VALUES ({marks})", values)
    connection.execute("COMMIT")


def _sample(number: int, total: int, devices: int, *, judged: bool) -> dict[str, Any]:
    at_s = END_S - (total - number) * STEP_S
    device = number % devices
    modality = _MODALITIES[device % len(_MODALITIES)]
    route = "alarm" if number % 97 == 0 else "audit" if number % 7 == 0 else "forward"
    return {
        "number": number,
        "sample_id": _sample_id(at_s, number),
        "device_id": device_name(device),
        "source_id": f"line-{device % 20}",
        "modality": modality,
        "origin": f"part_{number:09d}.png" if modality == "image" else f"readings.csv:{number}",
        "captured_at_s": at_s - 1.0,
        "received_at_s": at_s,
        "route": route,
        "edge_score": 1.5,
        "edge_p_value": 0.01,
        "edge_extrapolated": False,
        "edge_bundle_id": "press-1-00000000",
        "calibration_id": "c0ffee",
        "artefact": "int8_openvino",
        "traced": False,
        "payload_bytes": 4096,
        "judged": judged,
    }


def _verdict(row: dict[str, Any]) -> dict[str, Any]:
    number = row["number"]
    decision = "undecided" if number % RARE == 0 else "anomalous" if number % 50 == 0 else "normal"
    return row | {
        "judged_at_s": row["received_at_s"] + 0.2 + (number * 7919 % 100) / 100,  # not in the order of arrival
        "decision": decision,
        "p_value": 0.004,
        "extrapolated": False,
        "bundle_id": "press-1-00000000",
        "reason": "the analysis failed" if decision == "undecided" else "",
        "opinions": _OPINIONS,
        "contributions": _CONTRIBUTIONS,
    }


def _sample_id(at_s: float, number: int) -> bytes:
    """Return a UUIDv7 whose random bits derive from the number."""
    noise = random.Random(number).getrandbits(74)
    value = (int(at_s * 1000) << 80) | (0x7 << 76) | ((noise >> 62) << 64) | (0b10 << 62) | (noise & (2**62 - 1))
    return value.to_bytes(16, "big")


def _insert(
    connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]], names: Iterator[str] | list[str]
) -> None:
    names = list(names)
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
    connection.executemany(statement, rows)
