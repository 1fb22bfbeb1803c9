"""Times as RFC 3339 texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.moments import parse_moment, parse_rfc3339, rfc3339
from shared.errors import DataError


@given(st.floats(-6e10, 2.5e11))
def test_a_time_is_read_back_to_the_microsecond(at_s: float) -> None:
    assert parse_rfc3339(rfc3339(at_s)) == pytest.approx(at_s, abs=1e-4)


@given(st.floats(allow_nan=False))
def test_any_number_becomes_a_time(at_s: float) -> None:
    assert rfc3339(at_s).endswith("Z")


def test_offsets_and_dates() -> None:
    assert rfc3339(0.25) == "1970-01-01T00:00:00.250000Z"
    assert parse_rfc3339("1970-01-01t02:00:00+02:00") == 0.0
    assert parse_moment("1970-01-02") == 86_400.0


@given(
    st.text()
    | st.sampled_from(["2026-11-29", "1", "2026-11-29T06:30:00", "2026-13-29T06:30:00Z", "0001-01-01T00:00:00+23:00 "])
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is not a time"):
        parse_rfc3339(text)
