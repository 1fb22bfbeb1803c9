"""Two minutes of `make soak`."""

from pathlib import Path

import pytest

from tests.system.soak import Soak, draw, table

pytestmark = [pytest.mark.system, pytest.mark.long]


def test_two_minutes_of_cuts_errors_and_new_bundles_lose_nothing_and_leave_memory_flat(tmp_path: Path) -> None:
    result = Soak(tmp_path, 2.0, print).run()
    assert result.faults == [], "\n".join(table(result))
    assert result.samples > 3000
    assert result.resent > 0  # or the late and the half answers were none
    assert result.most_spooled > 500  # or the link was not cut
    draw(result, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 10_000
