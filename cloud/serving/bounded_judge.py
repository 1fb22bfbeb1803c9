"""Analysis with a bounded batch: after an out-of-memory error batches are halved, and grow again later."""

import sys
from collections.abc import Callable, Sequence

from cloud.serving.ports import EarlyDecision, Judge
from shared.errors import SampleRejected
from shared.logs import EventLog
from shared.samples import ImageCrop, Values, Verdict

GROW_AFTER = 64  # batches of the bounded size without an error
_LOG = EventLog("serving")


class BoundedJudge:
    """Judge that passes batches on to `judge`, in parts if one of them has been out of memory.

    A part that is out of memory is judged again in halves, and later parts are no larger than these. After GROW_AFTER
    full parts without an error, the bound is doubled. One sample that is out of memory by itself raises the error.
    `on_halved` is called for each halving.
    """

    def __init__(self, judge: Judge, on_halved: Callable[[], None] = lambda: None) -> None:
        self.judge_of_bundle, self._on_halved = judge, on_halved
        self._bound: int | None = None
        self._full_parts = 0

    def judge(
        self, values: Sequence[Values], crops: Sequence[ImageCrop | None], early: EarlyDecision | None = None
    ) -> list[Verdict | SampleRejected]:
        """Return one answer for each sample, in order."""
        answers: list[Verdict | SampleRejected] = []
        while len(answers) < len(values):
            size = self._part_size(len(values) - len(answers))
            part = slice(len(answers), len(answers) + size)
            allowed = None if early is None else early.at(range(part.start, part.stop))
            found = self._judge_part(values[part], crops[part], allowed)
            if found is None:
                self._halve(size)
            else:
                answers += found
                self._count_full_part(size)
        return answers

    def _judge_part(
        self, values: Sequence[Values], crops: Sequence[ImageCrop | None], early: EarlyDecision | None
    ) -> list[Verdict | SampleRejected] | None:
        """Return the answers; None if they need too much memory, once the memory of the attempt is free."""
        try:
            if early is None:
                return self.judge_of_bundle.judge(values, crops)
            return self.judge_of_bundle.judge(values, crops, early)
        except Exception as error:
            if not is_out_of_memory(error) or len(values) == 1:
                raise
        free_cached_memory()  # outside of the handler: the error's traceback holds the tensors of the attempt
        return None

    def _part_size(self, samples: int) -> int:
        return samples if self._bound is None else min(samples, self._bound)

    def _halve(self, size: int) -> None:
        self._bound, self._full_parts = max(size // 2, 1), 0
        self._on_halved()
        _LOG.warning("out_of_memory", samples=size, batch_size=self._bound)

    def _count_full_part(self, size: int) -> None:
        if self._bound is None or size < self._bound:
            return
        self._full_parts += 1
        if self._full_parts >= GROW_AFTER:
            self._bound, self._full_parts = 2 * self._bound, 0


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or PyTorch says that memory is used up."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _is_cpu_allocation(error)


def free_cached_memory() -> None:
    """Return unused memory that PyTorch keeps on a GPU to the device."""
    torch = sys.modules.get("torch")  # not loaded: nothing is cached
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_cpu_allocation(error: BaseException) -> bool:
    """Return whether it is PyTorch's error for memory of the CPU, which has no class of its own."""
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
