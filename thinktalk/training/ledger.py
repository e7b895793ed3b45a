"""Ledger: what is alive while code runs, and how much it was at most; real tensors and tensors without memory alike.

    with Ledger() as ledger: ...        ledger.alive, ledger.peak: bytes of the tensors made inside

Every operator below autograd passes by (TorchDispatchMode), in the forward and in the backward pass. A storage counts from the
operator that makes it until nothing refers to it. Working space inside an operator is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Ledger"]


class Ledger(TorchDispatchMode):
    """Counts the bytes of tensors made inside; tensors that were there before are free.

    >>> with Ledger() as ledger: x = torch.ones(256)
    >>> ledger.alive
    1024
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        """Bytes of tensors made inside that are still referred to."""
        self.peak = 0
        """The most that `alive` has been."""
        self._sizes: dict[int, int] = {}

    def know(self, tensors: Iterable[Tensor]) -> None:
        """These were there before."""
        for tensor in tensors:
            self._enter(tensor, 0)

    def _enter(self, tensor: Tensor, size: int | None = None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata  # the storage itself; Python's handles on it come and go
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if size is None else size
            self.alive += self._sizes[key]
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._leave, key)

    def _leave(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        self.know(x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        result = func(*args, **kwargs)
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                self._enter(made)
        return result
