"""Precision in which networks compute: float32, or matrix products in bfloat16 (torch.autocast).

Weights and everything around the networks stay in float32: noise levels, preconditioning, losses, densities.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

_BFLOAT16: ContextVar[bool] = ContextVar("bfloat16", default=False)


@contextmanager
def networks_in_bfloat16(enabled: bool = True) -> Iterator[None]:
    """Let networks compute in bfloat16 inside the block, in this thread."""
    before = _BFLOAT16.set(enabled)
    try:
        yield
    finally:
        _BFLOAT16.reset(before)


def network_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a network's call on `device`; its outputs may be bfloat16 inside of a bfloat16 block."""
    return torch.autocast(device.type, torch.bfloat16) if _BFLOAT16.get() else nullcontext()
