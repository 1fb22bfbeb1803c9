"""Memory that a loaded analysis holds, measured on its tensors and arrays."""

import gc
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

_SHARED_KINDS = (type, ModuleType, FunctionType, BuiltinFunctionType)  # they lead to the whole program


def resident_bytes(owner: object) -> int:
    """Return the bytes of all tensors and arrays that `owner` refers to, also indirectly; shared memory counts once."""
    torch = sys.modules.get("torch")  # not loaded: there are no tensors
    blocks: dict[tuple[str, int], int] = {}
    seen = {id(owner)}
    waiting: list[Any] = [owner]
    while waiting:
        found = waiting.pop()
        if torch is not None and isinstance(found, torch.Tensor):
            storage = found.untyped_storage()
            blocks[(str(found.device), storage.data_ptr())] = storage.nbytes()
        elif isinstance(found, np.ndarray):
            array = _owner_of_memory(found)
            blocks[("array", array.__array_interface__["data"][0])] = array.nbytes
        for item in gc.get_referents(found):
            if id(item) not in seen and not isinstance(item, _SHARED_KINDS):
                seen.add(id(item))
                waiting.append(item)
    return sum(blocks.values())


def _owner_of_memory(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
