"""TOML that is written reads back as the same values."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.toml_text import toml_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = TEXTS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_any_document_reads_back(values: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(values)) == values


def test_none_is_left_out_also_in_tables_of_lists() -> None:
    assert tomllib.loads(toml_text({"a": None, "b": [{"c": None, "d": 1}], "e": {"f": None}})) == {
        "b": [{"d": 1}],
        "e": {},
    }


def test_values_that_toml_does_not_know_are_an_error() -> None:
    with pytest.raises(TypeError, match="bytes"):
        toml_text({"a": b"x"})
