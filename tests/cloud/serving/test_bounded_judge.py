"""A batch that is out of memory is judged in halves."""

import numpy as np
import pytest
import torch

from cloud.serving import bounded_judge
from cloud.serving.bounded_judge import BoundedJudge
from shared.samples import Verdict


class Memory:
    """Judge with memory for `room` samples; it records the batch sizes that fitted."""

    def __init__(self, room: int, error: type[BaseException] = MemoryError) -> None:
        self.room, self.error, self.sizes = room, error, []

    def judge(self, values, crops):
        if len(values) > self.room:
            raise self.error("no memory")
        self.sizes.append(len(values))
        return [Verdict(p_value=float(item[0])) for item in values]


def values(count: int) -> list[np.ndarray]:
    return [np.array([(number + 1) / 1000], np.float32) for number in range(count)]


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_a_batch_that_is_out_of_memory_is_judged_in_halves_and_later_ones_start_there(error):
    memory, halvings = Memory(20, error), []
    judge = BoundedJudge(memory, lambda: halvings.append(1))
    answers = judge.judge(values(100), [None] * 100)
    assert [item.p_value for item in answers] == [float(item[0]) for item in values(100)]
    assert memory.sizes == [12] * 8 + [4]
    assert len(halvings) == 3
    judge.judge(values(100), [None] * 100)
    assert len(halvings) == 3


def test_the_bound_grows_again_when_there_is_more_memory(monkeypatch):
    monkeypatch.setattr(bounded_judge, "GROW_AFTER", 4)
    memory = Memory(20)
    judge = BoundedJudge(memory)
    judge.judge(values(64), [None] * 64)
    memory.room = 1000
    for _ in range(3):
        judge.judge(values(64), [None] * 64)
    assert memory.sizes[-1] == 64


def test_one_sample_without_memory_and_other_errors_are_raised():
    with pytest.raises(MemoryError):
        BoundedJudge(Memory(0)).judge(values(8), [None] * 8)
    with pytest.raises(ZeroDivisionError):
        BoundedJudge(Memory(1, ZeroDivisionError)).judge(values(8), [None] * 8)


def test_an_allocation_that_fails_in_pytorch_on_the_cpu_is_recognised():
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**55, dtype=torch.uint8)
    assert bounded_judge.is_out_of_memory(failed.value)
