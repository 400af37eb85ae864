"""Tensors of torch -> what a session keeps of them; see `library_reducers`.

torch's own pickle drops gradients, and copies storages through a file in memory.
"""

from __future__ import annotations

import pickle
import sys

from .array_reducers import region_at
from .packs import memory_at
from .reducers import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def torch_reducers() -> list[tuple[type, Callable[..., Any]]]:
    torch = sys.modules["torch"]
    if not hasattr(torch, "storage"):  # it is being imported
        return []
    return [
        (torch.storage.UntypedStorage, _storage),
        (torch.storage.TypedStorage, _typed_storage),
        (torch.Tensor, _tensor),
    ]


def _tensor(pickler: Any, tensor: Any) -> Any:
    pickler.packages.add("torch")
    if tensor.grad_fn is not None:
        raise Refused("a tensor of a graph: keep its `.detach()`", tensor)
    if tensor._backward_hooks:
        raise Refused("a tensor with hooks", tensor)
    if not tensor.is_leaf or tensor.grad is None:
        return None
    make, given, *state = tensor.__reduce_ex__(5)
    return make, given, (state[0] if state else None, tensor.grad), None, None, fill_tensor


def _typed_storage(pickler: Any, storage: Any) -> Any:
    return typed_storage, (storage._untyped_storage, storage.dtype)


def _storage(pickler: Any, storage: Any) -> Any:
    device, length = str(storage.device), storage.nbytes()
    if storage.device.type == "cuda":
        pickler.has_cuda = True
    if storage.device.type != "cpu":
        storage = storage.cpu()
        pickler._alive.append(storage)
    elif length:
        start = storage.data_ptr()
        pickler.ranges.append((start, start + length, True))
        region = region_at(pickler.around, start)
        if region is not None:
            return storage_in, (region, start - region.start, length)
    if not length:
        return storage_of, (b"", device)
    memory = memory_at(storage.data_ptr(), length)
    return storage_of, (pickle.PickleBuffer(memory), device)


# --- restoring


def fill_tensor(tensor: Any, state: Any) -> None:
    own, gradient = state
    if own is not None:
        torch = sys.modules["torch"]
        torch._utils._set_obj_state(tensor, own)
    tensor.grad = gradient


def typed_storage(storage: Any, dtype: Any) -> Any:
    torch = sys.modules["torch"]
    return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def storage_of(buffer: Any, device: str) -> Any:
    torch = sys.modules["torch"]
    if not len(memoryview(buffer)):
        return torch.UntypedStorage(0, device=_at_hand(device))
    made = torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()
    return made if device == "cpu" else made.to(device=_at_hand(device))


def storage_in(region: Any, at: int, length: int) -> Any:
    torch = sys.modules["torch"]
    return torch.frombuffer(
        memoryview(region)[at : at + length], dtype=torch.uint8
    ).untyped_storage()


def _at_hand(device: str) -> str:
    """Return the device, or the nearest one that this machine has."""
    torch = sys.modules["torch"]
    if device.partition(":")[0] == "cuda":
        if not torch.cuda.is_available():
            return "cpu"
        number = int(device.partition(":")[2] or 0)
        return device if number < torch.cuda.device_count() else "cuda:0"
    return device
