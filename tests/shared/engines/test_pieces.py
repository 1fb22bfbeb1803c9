"""How engines cut batches: large images one at a time, vectors many together."""

import subprocess
import sys

import numpy as np
import pytest

from shared.engines.pieces import PieceSizes

PIECES = PieceSizes()
piece_size = PIECES.piece_size


@pytest.mark.parametrize("side", [256, 640])
def test_large_images_go_one_at_a_time(side: int) -> None:
    assert piece_size((8, side, side, 3), streams=2) == 1


def test_small_images_go_together_and_every_stream_has_some() -> None:
    assert piece_size((64, 64, 64, 3), streams=1) == PIECES.max_image_bytes // (64 * 64 * 3)
    assert piece_size((8, 64, 64, 3), streams=2) == 4


@pytest.mark.parametrize("streams", [2, 4, 8])
def test_each_stream_gets_its_share_of_a_batch_of_vectors(streams: int) -> None:
    assert piece_size((1024, 40), streams) == 1024 // streams


def test_a_piece_of_vectors_is_no_smaller_and_no_larger_than_is_worth_a_request() -> None:
    assert piece_size((4, 40), streams=2) == PIECES.min_vectors
    assert piece_size((4096, 2048), streams=1) * 2048 * 4 == PIECES.max_vector_bytes
    assert piece_size((100_000, 8), streams=2) <= PIECES.max_vectors
    assert piece_size((0, 40), streams=2) == PIECES.min_vectors


def test_the_pieces_of_vectors_are_of_one_size() -> None:
    size = piece_size((1024, 1216), streams=2)
    assert size * 1216 * 4 <= PIECES.max_vector_bytes
    assert 1024 % size == 0


@pytest.mark.parametrize("count", [1, 15, 16, 130, 1000])
def test_pieces_of_vectors_are_whole_rows_of_registers_and_hold_the_batch(count: int) -> None:
    batch = np.random.default_rng(0).random((count, 5), dtype=np.float32)
    pieces = PIECES.cut(batch, streams=2)
    assert all(len(piece) % PIECES.row_multiple == 0 for piece in pieces)
    np.testing.assert_array_equal(np.concatenate(pieces)[:count], batch)


def test_pieces_of_images_are_not_padded() -> None:
    assert [len(piece) for piece in PIECES.cut(np.zeros((3, 256, 256, 3), np.uint8), streams=2)] == [1, 1, 1]


def test_the_converter_stays_out_of_an_agent_and_can_be_had_afterwards() -> None:
    code = (
        "import sys; from shared.engines.openvino import _core; _core(); "
        "assert 'openvino.tools.ovc' not in sys.modules; "
        "from openvino.tools.ovc import convert_model; print(convert_model.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "convert_model", done.stderr
