"""A verdict column is declared once: table, row, filters, API and console follow from it."""

import math
from dataclasses import fields
from typing import Any

from pydantic import BaseModel

from cloud.console.verdicts.table import enum_values, filter_choices, table_columns
from cloud.console.views import VerdictView
from cloud.store.schema import samples, verdicts
from cloud.store.verdict_columns import (
    COLUMNS,
    FILTER_NAMES,
    SAMPLES,
    VERDICTS,
    api_fields,
    contributions_from_json,
    contributions_to_json,
    opinions_from_json,
    opinions_to_json,
)
from cloud.store.verdict_keys import VerdictFilter
from shared.samples import Opinion


def test_the_tables_hold_exactly_the_declared_columns() -> None:
    for table, own in ((samples, {"judged", "traced"}), (verdicts, set())):
        declared = {name for name, stored in COLUMNS.items() if table.name in stored.tables}
        assert {column.name for column in table.c} - own == declared
    assert {name for stored in COLUMNS.values() for name in stored.tables} == {SAMPLES, VERDICTS}


def test_every_declared_filter_can_be_asked_for() -> None:
    not_columns = {"label", "text", "since_s", "until_s", "sites"}
    asked = {field.name for field in fields(VerdictFilter)} - not_columns
    assert asked == set(FILTER_NAMES)
    choices = {choice["name"] for choice in filter_choices(["press-1"])}
    assert choices == {"device", "modality", "route", "decision", "span"}


def test_a_filter_offers_every_value_of_its_column() -> None:
    offered = {choice["name"]: [value for value, _ in choice["options"]] for choice in filter_choices(["press-1"])}
    assert offered["device"] == ["press-1"]
    for name in ("modality", "route", "decision"):
        assert offered[name] == list(enum_values(name))


def test_the_console_lists_only_keys_of_an_api_row() -> None:
    view: type[BaseModel] = VerdictView
    keys = [column.key for column in table_columns()]
    assert set(keys) <= set(view.model_fields)
    assert len(keys) == len(set(keys)) == 11
    assert set(api_fields("row")) <= set(view.model_fields)
    assert set(api_fields("row")) < set(api_fields("detail"))


def test_opinions_and_contributions_survive_the_store() -> None:
    opinions = (Opinion("knn", 2.5, 0.01, True), Opinion("score_norm", math.nan, math.nan, False))
    stored: list[dict[str, Any]] = opinions_to_json(opinions)
    assert stored[1]["score"] is stored[1]["p_value"] is None
    read = opinions_from_json(stored)
    assert read[0] == opinions[0]
    assert math.isnan(read[1].score)
    assert math.isnan(read[1].p_value)
    assert contributions_from_json(contributions_to_json([("radius", 0.75)])) == (("radius", 0.75),)
