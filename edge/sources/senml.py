"""SenML packs (RFC 8428): records with a name, a time and a value, relative to the base fields of earlier records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RELATIVE_BELOW_S = 2.0**28  # smaller times are relative to the present (section 4.5.3)
NAME, TIME, VALUE = "name", "time", "value"
_VALUES = ("v", "vb", "vs", "vd")


def resolved(pack: Sequence[Any], arrived_s: float) -> Iterator[dict[str, Any] | str]:
    """Yield each record of a pack with its full name, its time in seconds since the epoch, and its value.

    A record that cannot be resolved is yielded as the reason, a text. A record with base fields only gives nothing.
    """
    base: dict[str, Any] = {"bn": "", "bt": 0.0, "bv": 0.0}
    for record in pack:
        if not isinstance(record, Mapping):
            yield f"{str(record)[:40]!r} is not a SenML record."
            continue
        base.update({key: record[key] for key in base if key in record})
        found = [key for key in _VALUES if key in record]
        try:
            name = str(base["bn"]) + str(record.get("n", ""))
            at_s = float(base["bt"]) + float(record.get("t", 0.0))
            if not found:
                if any(key in record for key in ("n", "t", "s")):
                    yield f"{name[:40]!r} has no value."
                continue
            value = record[found[0]]
            if found[0] == "v":
                value = float(value) + float(base["bv"])
        except (ValueError, TypeError, OverflowError) as error:
            yield f"is not a SenML record: {error}."
            continue
        yield {NAME: name, TIME: at_s + arrived_s if at_s < RELATIVE_BELOW_S else at_s, VALUE: value}
