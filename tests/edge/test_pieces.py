"""How engines cut batches: images one at a time, rows many together, whatever a busy core makes of the timing."""

import subprocess
import sys

import numpy as np
import pytest

from edge.engines.pieces import LEAST_BYTES, MOST_BYTES, best_piece


@pytest.mark.parametrize("side", [256, 640])
def test_large_images_go_one_at_a_time_without_a_trial(side: int) -> None:
    tried: list[int] = []
    assert best_piece(np.zeros((8, side, side, 3), np.uint8), tried.append) == 1
    assert tried == []  # there is nothing to choose


def test_rows_go_together_by_no_less_and_no_more_than_is_worth_a_request() -> None:
    rows = np.zeros((4096, 40), np.float32)
    tried: list[int] = []
    piece = best_piece(rows, tried.append)
    row_bytes = rows[:1].nbytes
    assert LEAST_BYTES // row_bytes <= piece <= MOST_BYTES // row_bytes
    assert min(tried) == LEAST_BYTES // row_bytes
    assert max(tried) <= MOST_BYTES // row_bytes


@pytest.mark.parametrize("count", [1, 3])
def test_a_piece_is_no_larger_than_the_batch(count: int) -> None:
    assert best_piece(np.zeros((count, 5), np.float32), lambda rows: None) <= count


def test_the_converter_stays_out_of_an_agent_and_can_be_had_afterwards() -> None:
    code = (
        "import sys; from edge.engines.openvino import _core; _core(); "
        "assert 'openvino.tools.ovc' not in sys.modules; "
        "from openvino.tools.ovc import convert_model; print(convert_model.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "convert_model", done.stderr
