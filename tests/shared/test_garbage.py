"""Pauses of Python's garbage collection."""

import gc

import pytest

from shared.garbage import collection_paused


def fail_in_a_pause() -> None:
    with collection_paused():
        with collection_paused():
            pass
        assert not gc.isenabled()
        raise KeyError


def test_collection_resumes_after_an_error_and_not_inside_another_pause() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError):
        fail_in_a_pause()
    assert gc.isenabled()
