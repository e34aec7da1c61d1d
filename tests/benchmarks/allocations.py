# SPDX-License-Identifier: Apache-2.0
"""Counts the memory of tensors on any device, which neither Python nor the system sees exactly."""

import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Follows what operators return while this context is open.

    What an operator uses for itself and what existed before are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest_bytes = 0
        """The largest single tensor."""
        self.peak_bytes = 0
        """All tensors alive at the same time, at most."""
        self._alive_bytes = 0
        self._holders: Counter[int] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        before = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if _is_tensor(leaf) and (self._holders[_storage(leaf)] or _storage(leaf) not in before):
                self._follow(leaf)
        return result

    def _follow(self, tensor: torch.Tensor) -> None:
        """Count a tensor's memory until the last one that lies in it is gone."""
        storage, num_bytes = _storage(tensor), tensor.untyped_storage().nbytes()
        if not self._holders[storage]:
            self._alive_bytes += num_bytes
            self.largest_bytes = max(self.largest_bytes, num_bytes)
            self.peak_bytes = max(self.peak_bytes, self._alive_bytes)
        self._holders[storage] += 1
        weakref.finalize(tensor, self._leave, storage, num_bytes)

    def _leave(self, storage: int, num_bytes: int) -> None:
        self._holders[storage] -= 1
        if not self._holders[storage]:
            self._alive_bytes -= num_bytes


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
