"""Columns of a verdict and its sample, declared once.

Each field of `VerdictRow` and `VerdictRecord` is one column. Its annotation is the type in Python; its `Stored`
metadata names the tables that hold it, its filter and its place in the API and the console. From these fields derive
the SQL tables (`cloud.store.schema`), the rows that queries return (the classes themselves), the API's rows
(`cloud.console.views`) and the console's table (`cloud.console.verdicts.table`). A new column is a new field here and a
new migration step.
"""

import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo
from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Integer, LargeBinary, String
from sqlalchemy.types import TypeEngine

from shared.modality import Modality
from shared.samples import Decision, Opinion, Route, p_value_from_column

SAMPLES, VERDICTS = "samples", "verdicts"
BOTH = (SAMPLES, VERDICTS)
MAX_REASON_CHARACTERS = 1024

# SQLite assigns row numbers by itself only where the key is exactly INTEGER.
Number = BigInteger().with_variant(Integer(), "sqlite")


@dataclass(frozen=True, slots=True)
class Listing:
    """Column of the console's table: its heading, the kind of its cells, and the text of its tooltip.

    `key` names the value in an API row where it differs from the column's name; `plural` is for the filter "All ...".
    """

    title: str
    kind: Literal["decision", "thumbnail", "text", "word", "p_value", "route", "time", "duration"]
    key: str = ""
    hint: str = ""
    plural: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """Storage, filter and publication of one column.

    `tables` hold the column: the first is read, the last, whose indices start with it, is filtered. A `key` is declared
    by each table itself. `added_default` fills old verdicts in a store that got the column later. `is_filter` columns
    can be restricted to one value, `is_searched` ones are searched for a text. `api` is the view that publishes the
    value as it is, and every larger one. `listing` places the column in the console's table, in the order of the
    fields.
    """

    sql_type: TypeEngine[Any]
    tables: tuple[str, ...] = (SAMPLES,)
    nullable: bool = False
    key: bool = False
    is_filter: bool = False
    is_searched: bool = False
    added_default: str | None = None
    api: Literal["row", "detail", ""] = ""
    listing: Listing | None = None


def finite_or_none(value: float | None) -> float | None:
    """Return `value` as JSON can hold it: None for NaN and infinity."""
    return value if value is not None and math.isfinite(value) else None


def opinions_to_json(opinions: Iterable[Opinion]) -> list[dict[str, Any]]:
    """Return opinions as JSON values; a figure that is not a number becomes null."""
    return [
        {
            "analyzer": item.analyzer,
            "score": finite_or_none(item.score),
            "p_value": finite_or_none(item.p_value),
            "extrapolated": item.extrapolated,
        }
        for item in opinions
    ]


def opinions_from_json(values: Iterable[Mapping[str, Any]]) -> tuple[Opinion, ...]:
    """Return the opinions that `opinions_to_json` wrote; null becomes NaN."""
    return tuple(
        Opinion(item["analyzer"], _from_null(item["score"]), _from_null(item["p_value"]), item["extrapolated"])
        for item in values
    )


def _from_null(value: float | None) -> float:
    return math.nan if value is None else value


def contributions_to_json(contributions: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    """Return shares by name as JSON values."""
    return [{"name": name, "share": share} for name, share in contributions]


def contributions_from_json(values: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    """Return the shares that `contributions_to_json` wrote."""
    return tuple((item["name"], item["share"]) for item in values)


class VerdictRow(BaseModel):
    """One verdict with its sample, as listed; times in seconds since the epoch.

    `edge_score` is None where the edge's score was not a number. `p_value` is the fused one, None (0 in the
    column) where the cloud could not judge the sample. `bundle_id` judged, `edge_bundle_id` screened.
    """

    model_config = ConfigDict(frozen=True)

    number: Annotated[int, Stored(Number, BOTH, key=True)]
    decision: Annotated[
        Decision,
        Stored(
            String(16),
            (VERDICTS,),
            is_filter=True,
            api="row",
            listing=Listing("Decision", "decision", plural="decisions"),
        ),
    ]
    sample_id: Annotated[
        uuid.UUID,
        Stored(LargeBinary(16), api="row", listing=Listing("Sample", "thumbnail", key="thumbnail")),
    ]
    device_id: Annotated[
        str,
        Stored(String(64), BOTH, is_filter=True, api="row", listing=Listing("Device", "text", plural="devices")),
    ]
    source_id: Annotated[str, Stored(String(512), BOTH, is_searched=True, api="row", listing=Listing("Source", "text"))]
    origin: Annotated[str, Stored(String(512), is_searched=True, api="row", listing=Listing("Origin", "text"))]
    modality: Annotated[
        Modality,
        Stored(String(16), BOTH, is_filter=True, api="row", listing=Listing("Modality", "word", plural="modalities")),
    ]
    edge_p_value: Annotated[
        float,
        Stored(
            Double(),
            listing=Listing(
                "Edge", "p_value", key="edge", hint="How often a normal sample looks at least this odd to the edge"
            ),
        ),
    ]
    p_value: Annotated[
        float | None,
        BeforeValidator(p_value_from_column),
        Stored(
            Double(),
            (VERDICTS,),
            listing=Listing(
                "Fused",
                "p_value",
                key="fused",
                hint="How often a normal sample looks at least this odd to the cloud's analyzers together",
            ),
        ),
    ]
    route: Annotated[
        Route,
        Stored(
            String(16),
            BOTH,
            is_filter=True,
            added_default="",
            api="row",
            listing=Listing("Route", "route", plural="routes"),
        ),
    ]
    judged_at_s: Annotated[float, Stored(Double(), (VERDICTS,), api="row", listing=Listing("Time", "time"))]
    captured_at_s: Annotated[
        float,
        Stored(
            Double(),
            api="row",
            listing=Listing("Latency", "duration", key="latency", hint="From the capture to the verdict"),
        ),
    ]
    received_at_s: Annotated[float, Stored(Double(), api="row")]
    edge_score: Annotated[float | None, Stored(Double(), nullable=True)]
    edge_extrapolated: Annotated[bool, Stored(Boolean())]
    edge_bundle_id: Annotated[str, Stored(String(512), api="detail")]
    calibration_id: Annotated[str, Stored(String(512), api="detail")]
    artefact: Annotated[str, Stored(String(512), api="detail")]
    payload_bytes: Annotated[int, Stored(Integer())]
    extrapolated: Annotated[bool, Stored(Boolean(), (VERDICTS,))]
    bundle_id: Annotated[str, Stored(String(128), (VERDICTS,), api="detail")]
    reason: Annotated[str, Stored(String(MAX_REASON_CHARACTERS), (VERDICTS,), api="row")]
    contributions: Annotated[
        tuple[tuple[str, float], ...], BeforeValidator(contributions_from_json), Stored(JSON(), (VERDICTS,))
    ]

    @property
    def p_value_is_bound(self) -> bool:
        """Whether the fused p-value is an upper bound: analyzers were left out, and `reason` names them."""
        return self.decision is Decision.ANOMALOUS and bool(self.reason)


class VerdictRecord(VerdictRow):
    """One verdict in full: a listed row and the opinions of the analyzers."""

    opinions: Annotated[tuple[Opinion, ...], BeforeValidator(opinions_from_json), Stored(JSON(), (VERDICTS,))]


COLUMNS: Mapping[str, Stored] = {
    name: next(item for item in field.metadata if isinstance(item, Stored))
    for name, field in VerdictRecord.model_fields.items()
}
LISTED_NAMES = tuple(VerdictRow.model_fields)
FILTER_NAMES = tuple(name for name, stored in COLUMNS.items() if stored.is_filter)
SEARCHED_NAMES = tuple(name for name, stored in COLUMNS.items() if stored.is_searched)


def table_columns(table: str) -> list[Column[Any]]:
    """Return new SQL columns of `table`, keys left out."""
    return [
        Column(
            name,
            stored.sql_type,
            nullable=stored.nullable,
            server_default=stored.added_default if table == VERDICTS else None,
        )
        for name, stored in COLUMNS.items()
        if table in stored.tables and not stored.key
    ]


def api_fields(view: Literal["row", "detail"]) -> dict[str, FieldInfo]:
    """Return the fields that a view of the API publishes as they are, by name; a detail view holds a row's too."""
    views = ("row",) if view == "row" else ("row", "detail")
    return {name: field for name, field in VerdictRecord.model_fields.items() if COLUMNS[name].api in views}


def published(row: VerdictRow, view: Literal["row", "detail"]) -> dict[str, Any]:
    """Return the values of `row` that a view of the API publishes as they are, as JSON values."""
    return row.model_dump(mode="json", include=set(api_fields(view)))
