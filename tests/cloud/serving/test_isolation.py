"""Samples that end the analysis process: recorded while under way, judged alone, and condemned."""

import os
import tempfile
import uuid

from cloud.serving.isolation import MAX_CONDEMNED, Isolation, Suspects, recorded

ONE, TWO, THREE, FOUR = (uuid.UUID(int=number) for number in range(1, 5))


def test_the_record_holds_what_is_under_way():
    with tempfile.TemporaryFile() as file:
        isolation = Isolation(file.fileno())
        assert recorded(file.fileno()) == set()
        with isolation.under_way([ONE, TWO, THREE]):
            with isolation.under_way([FOUR]):
                assert recorded(file.fileno()) == {ONE, TWO, THREE, FOUR}
            assert recorded(file.fileno()) == {ONE, TWO, THREE}
        assert recorded(file.fileno()) == set()


def test_a_damaged_record_names_nobody():
    for content in (b"\0" * 3, b"\xff" * 8, b"\xff" * 40, (17).to_bytes(8, "big") + bytes(17)):
        with tempfile.TemporaryFile() as file:
            os.pwrite(file.fileno(), content, 0)
            assert recorded(file.fileno()) == set()


def test_one_end_says_nothing_and_two_ends_with_the_same_samples_make_them_suspect():
    suspects = Suspects()
    suspects.note_end({ONE, TWO, THREE})
    assert not suspects.alone
    suspects.note_end({TWO, THREE, FOUR})
    assert suspects.alone == {TWO, THREE}
    suspects.note_end({THREE})
    assert suspects.condemned == [THREE]
    assert suspects.alone == {TWO}


def test_an_end_with_several_suspects_under_way_condemns_none():
    suspects = Suspects()
    for _ in range(3):
        suspects.note_end({ONE, TWO})
    assert suspects.alone == {ONE, TWO}
    assert suspects.condemned == []


def test_condemned_samples_are_bounded():
    suspects = Suspects(condemned=[uuid.UUID(int=number) for number in range(MAX_CONDEMNED)])
    for number in (MAX_CONDEMNED, MAX_CONDEMNED + 1):
        suspects.alone = {uuid.UUID(int=number)}
        suspects.note_end({uuid.UUID(int=number)})
    assert len(suspects.condemned) == MAX_CONDEMNED
    assert suspects.condemned[-1] == uuid.UUID(int=MAX_CONDEMNED + 1)
