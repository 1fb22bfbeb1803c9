"""Samples that end the analysis process: recorded while under way, judged alone, and condemned."""

import tempfile

from cloud.serving.isolation import MAX_CONDEMNED, Isolation, Suspects, recorded


def test_the_record_holds_what_is_under_way():
    with tempfile.TemporaryFile() as file:
        isolation = Isolation(file.fileno())
        assert recorded(file.fileno()) == set()
        with isolation.under_way([1, 2, 3]):
            with isolation.under_way([4]):
                assert recorded(file.fileno()) == {1, 2, 3, 4}
            assert recorded(file.fileno()) == {1, 2, 3}
        assert recorded(file.fileno()) == set()


def test_one_end_says_nothing_and_two_ends_with_the_same_samples_make_them_suspect():
    suspects = Suspects()
    suspects.note_end({1, 2, 3})
    assert not suspects.alone
    suspects.note_end({2, 3, 4})
    assert suspects.alone == {2, 3}
    suspects.note_end({3})
    assert suspects.condemned == [3]
    assert suspects.alone == {2}


def test_an_end_with_several_suspects_under_way_condemns_none():
    suspects = Suspects()
    for _ in range(3):
        suspects.note_end({1, 2})
    assert suspects.alone == {1, 2}
    assert suspects.condemned == []


def test_condemned_samples_are_bounded():
    suspects = Suspects()
    for number in range(MAX_CONDEMNED + 2):
        suspects.alone = {number}
        suspects.note_end({number})
    assert len(suspects.condemned) == MAX_CONDEMNED
    assert suspects.condemned[-1] == MAX_CONDEMNED + 1
