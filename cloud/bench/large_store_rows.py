"""Statements that let a database make the rows of a generated store, in the dialects of both back ends."""

import json
import random
from dataclasses import dataclass

from cloud.store.schema import payloads, samples, verdicts

DEVICES = 500
END_S, STEP_S = 1_800_000_000.0, 0.5
RARE = 50_000  # every n-th sample is undecided
_OPINIONS = json.dumps(
    [
        {"analyzer": name, "score": 1.25, "p_value": 0.004, "extrapolated": False}
        for name in ("knn", "score_norm", "time_estimation")
    ]
)
_CONTRIBUTIONS = json.dumps([{"name": "pressure", "share": 0.75}, {"name": "speed", "share": 0.25}])


@dataclass(frozen=True, slots=True)
class StoreContents:
    """Rows to make: `count` judged samples of `devices` devices, then `waiting` samples without a verdict.

    The first `with_payload` samples have a payload of `payload_bytes`. The newest sample arrived at `end_s`,
    and one arrived every `step_s` seconds before it.
    """

    count: int
    devices: int = DEVICES
    waiting: int = 1000
    with_payload: int = 0
    payload_bytes: int = 1024
    end_s: float = END_S
    step_s: float = STEP_S


def insert_statements(dialect: str, contents: StoreContents, first: int, last: int) -> dict[str, str]:
    """Return the statements that make the rows with the numbers `first` to `last`, by table."""
    rows = {
        "samples": _sample(dialect, contents),
        "verdicts": _verdict(contents),
        "payloads": _payload(dialect, contents.payload_bytes),
    }
    columns = {"samples": samples.c.keys(), "verdicts": verdicts.c.keys(), "payloads": payloads.c.keys()}
    return {
        table: f"{_numbers(dialect, table, first, last, columns[table])} "
        f"SELECT {', '.join(values.get(name, 'NULL') for name in columns[table])} FROM numbers"
        for table, values in rows.items()
    }


def uuid7(at_ms: float, number: int) -> bytes:
    """Return a UUIDv7 whose random bits derive from the number."""
    noise = random.Random(number).getrandbits(74)
    value = (int(at_ms) << 80) | (0x7 << 76) | ((noise >> 62) << 64) | (0b10 << 62) | (noise & (2**62 - 1))
    return value.to_bytes(16, "big")


def _numbers(dialect: str, table: str, first: int, last: int, columns: list[str]) -> str:
    begin = f"INSERT INTO {table} ({', '.join(columns)})"
    if dialect == "postgresql":
        return f"{begin} WITH numbers AS (SELECT number FROM generate_series({first}::bigint, {last}) AS number)"
    more = f"SELECT number + 1 FROM numbers WHERE number < {last}"
    return f"{begin} WITH RECURSIVE numbers(number) AS (SELECT {first} UNION ALL {more})"


def _sample(dialect: str, contents: StoreContents) -> dict[str, str]:
    """Return the value of each column of a sample that is the same in its verdict, and of the others."""
    at_s = _received_at_s(contents)
    if dialect == "postgresql":
        hexadecimal = f"lpad(to_hex(floor(1000 * ({at_s}))::bigint), 12, '0')"
        noise = "md5(number::text)"
        sample_id = f"decode({hexadecimal} || '7' || left({noise}, 3) || '8' || right({noise}, 15), 'hex')"
    else:
        sample_id = f"uuid7(1000 * ({at_s}), number)"
    image = f"'part_' || {_padded('number', 9)} || '.png'"
    return _shared(contents) | {
        "sample_id": sample_id,
        "origin": f"CASE WHEN {_place(contents)} % 3 = 2 THEN {image} ELSE 'readings.csv:' || number END",
        "captured_at_s": f"{at_s} - 1.0",
        "received_at_s": at_s,
        "edge_score": "1.5",
        "edge_p_value": "0.01",
        "edge_extrapolated": "false",
        "edge_bundle_id": "'press-1-00000000'",
        "calibration_id": "'c0ffee'",
        "artefact": "'int8_openvino'",
        "payload_bytes": str(contents.payload_bytes),
        "judged": f"number <= {contents.count}",
        "traced": "false",
    }


def _verdict(contents: StoreContents) -> dict[str, str]:
    undecided = f"number % {RARE} = 0"
    return _shared(contents) | {
        # Not in the order of arrival.
        "judged_at_s": f"{_received_at_s(contents)} + 0.2 + (number * 7919 % 100) / 100.0",
        "decision": f"CASE WHEN {undecided} THEN 'undecided' WHEN number % 50 = 0 THEN 'anomalous' ELSE 'normal' END",
        "p_value": "0.004",
        "extrapolated": "false",
        "bundle_id": "'press-1-00000000'",
        "reason": f"CASE WHEN {undecided} THEN 'the analysis failed' ELSE '' END",
        "opinions": f"'{_OPINIONS}'",
        "contributions": f"'{_CONTRIBUTIONS}'",
    }


def _payload(dialect: str, size: int) -> dict[str, str]:
    postgresql = f"decode(left(repeat(md5(number::text), {size} / 16 + 1), 2 * {size}), 'hex')"
    data = postgresql if dialect == "postgresql" else f"randomblob({size})"
    return {"number": "number", "encoding": "1", "shape": "'[8]'", "data": data}


def _shared(contents: StoreContents) -> dict[str, str]:
    """Return the value of each column that a sample and its verdict share."""
    place = _place(contents)
    return {
        "number": "number",
        "device_id": f"'device-' || {_padded(place, 5)}",
        "source_id": f"'line-' || ({place} % 20)",
        "modality": f"CASE {place} % 3 WHEN 0 THEN 'tabular' WHEN 1 THEN 'series' ELSE 'image' END",
        "route": "CASE WHEN number % 97 = 0 THEN 'alarm' WHEN number % 7 = 0 THEN 'audit' ELSE 'forward' END",
    }


def _place(contents: StoreContents) -> str:
    return f"(number % {contents.devices})"


def _padded(value: str, width: int) -> str:
    """Return the expression of a number with leading zeros, in both dialects."""
    return f"substr({10**width} + {value} || '', 2)"


def _received_at_s(contents: StoreContents) -> str:
    total = contents.count + contents.waiting
    return f"({contents.end_s!r} - ({total} - number) * {contents.step_s!r})"
