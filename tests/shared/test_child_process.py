"""JSON-lines children: answers in order, libraries that print, deaths and deadlines."""

import sys
import tempfile
from collections.abc import Iterator
from typing import IO

import pytest

from shared.child_process import JsonLinesProcess
from shared.errors import NoAnswerError

DOUBLER = """
import os, sys, time
from shared.child_process import serve_json_lines

def answer(request):
    print("a library talks")
    if request["x"] < 0:
        os._exit(7)
    if request["x"] == 1000:
        time.sleep(60)
    return {"twice": 2 * request["x"], "text": "\\u00e9\\n" * request.get("lines", 0)}

serve_json_lines(answer)
"""


@pytest.fixture
def errors() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        yield file


@pytest.fixture
def child(errors: IO[bytes]) -> Iterator[JsonLinesProcess]:
    with JsonLinesProcess([sys.executable, "-c", DOUBLER], stderr=errors) as child:
        yield child


def test_answers_come_in_order_whatever_libraries_print(child: JsonLinesProcess, errors: IO[bytes]) -> None:
    assert [child.ask({"x": x})["twice"] for x in range(3)] == [0, 2, 4]
    assert child.ask({"x": 1, "lines": 100_000}, timeout_s=30)["text"] == "é\n" * 100_000
    errors.seek(0)
    assert b"a library talks" in errors.read()


def test_a_child_that_ends_gives_its_exit_code(child: JsonLinesProcess) -> None:
    assert child.ask({"x": 1})["twice"] == 2
    for _ in range(2):
        with pytest.raises(NoAnswerError) as caught:
            child.ask({"x": -1})
        assert caught.value.child_exit_code == 7


def test_a_child_that_takes_too_long_is_told_apart(child: JsonLinesProcess) -> None:
    assert child.ask({"x": 1}, timeout_s=30)["twice"] == 2
    with pytest.raises(NoAnswerError) as caught:
        child.ask({"x": 1000}, timeout_s=0.2)
    assert caught.value.child_exit_code is None


@pytest.mark.parametrize("output", ["[1]", "no json", ""])
def test_an_answer_that_is_no_object_is_none(errors: IO[bytes], output: str) -> None:
    code = f"import sys; sys.stdin.readline(); print({output!r})"
    with JsonLinesProcess([sys.executable, "-c", code], stderr=errors) as child, pytest.raises(NoAnswerError):
        child.ask({})


def test_a_command_that_cannot_be_started_is_an_os_error(errors: IO[bytes]) -> None:
    with pytest.raises(FileNotFoundError):
        JsonLinesProcess(["/nowhere/at/all"], stderr=errors)
