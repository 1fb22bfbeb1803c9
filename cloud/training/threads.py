"""How many threads a training run computes with."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from shared.modality import Modality


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for PyTorch, and as many as before afterwards.

    The networks for vectors are so small that threads spend their time waiting for one another: on a busy machine of
    two cores a head takes ten times longer with two threads than with one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(modality: Modality) -> AbstractContextManager[None]:
    """One thread for vectors, all for images and clips, whose encoder keeps them busy."""
    return nullcontext() if modality in (Modality.IMAGE, Modality.VIDEO) else one_thread()
