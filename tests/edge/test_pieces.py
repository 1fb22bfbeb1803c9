"""How engines cut batches: images one at a time, rows many together."""

import subprocess
import sys

import pytest

from edge.engines.pieces import LEAST_BYTES, MOST_BYTES, piece_rows


@pytest.mark.parametrize("side", [256, 640])
def test_large_images_go_one_at_a_time(side: int) -> None:
    assert piece_rows(8, side * side * 3, streams=2) == 1


@pytest.mark.parametrize("streams", [1, 2, 16])
def test_each_stream_gets_its_share_of_a_batch_of_rows(streams: int) -> None:
    assert piece_rows(4096, 64, streams) == 4096 // streams


def test_a_piece_is_no_smaller_and_no_larger_than_is_worth_a_request() -> None:
    assert piece_rows(4, 512, streams=2) * 512 == LEAST_BYTES
    assert piece_rows(10**6, 512, streams=2) * 512 == MOST_BYTES


def test_the_converter_stays_out_of_an_agent_and_can_be_had_afterwards() -> None:
    code = (
        "import sys; from edge.engines.openvino import _core; _core(); "
        "assert 'openvino.tools.ovc' not in sys.modules; "
        "from openvino.tools.ovc import convert_model; print(convert_model.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "convert_model", done.stderr
