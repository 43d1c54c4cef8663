"""From items to what the callable is given: NumPy items of one shape and type as one array, all others as a list.

Which of the two an item is part of depends on the item alone, never on its company: a batch of several shapes makes one
call for each.
"""

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Kind = tuple[tuple[int, ...], np.dtype[Any]] | None
"""Shape and type of a NumPy item; None for any other object."""

_UNUSED = 2  # references to a buffer that nobody else holds: the variable, and the argument of getrefcount


def kind_of(item: Any) -> Kind:
    """How `item` is handed over. A masked array stays an object of its own: stacking would drop its mask."""
    if isinstance(item, np.ndarray | np.generic) and not isinstance(item, np.ma.MaskedArray):
        return item.shape, item.dtype
    return None


def by_kind(items: Sequence[Any]) -> dict[Kind, list[int]]:
    """The positions of the items of each kind, in the order of their first items."""
    groups: dict[Kind, list[int]] = {}
    for position, item in enumerate(items):
        groups.setdefault(kind_of(item), []).append(position)
    return groups


class Buffers:
    """Arrays to stack into, kept from call to call: a large one costs more to get from the system than to fill.

    One is used again only when nobody holds on to it, neither the callable nor a result that is a view of it: the
    count of references says so (views hold one). Where there is no such count, none is used again.
    """

    def __init__(self, keep: int) -> None:
        """`keep`: most buffers that are kept; as many as there are calls at once."""
        self._keep = keep if sys.implementation.name == "cpython" else 0
        self._lock = threading.Lock()
        self._free: list[NDArray[Any]] = []

    def stack(self, items: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """`items`, all of one kind, as rows of one C-contiguous array that may be a view of a buffer."""
        first = items[0]
        rows = self._take(len(items), first.shape, first.dtype)[: len(items)]
        for row, item in enumerate(items):
            rows[row] = item
        return rows

    def give_back(self, rows: NDArray[Any]) -> None:
        """The call for which `rows` were stacked is over; the caller holds no other reference to them afterwards."""
        buffer = rows.base
        if buffer is None or buffer.dtype.hasobject:
            return
        with self._lock:
            self._free.append(buffer)
            del self._free[: -self._keep or len(self._free)]

    def _take(self, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        with self._lock:
            for at in range(len(self._free)):
                if self._fits(at, rows, shape, dtype):
                    return self._free.pop(at)
        return np.empty((1 << (rows - 1).bit_length(), *shape), dtype)

    def _fits(self, at: int, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
        """Whether a kept buffer is of this kind, large enough, and let go of by everyone."""
        buffer = self._free[at]
        if buffer.shape[1:] != shape or buffer.dtype != dtype or len(buffer) < rows:
            return False
        return sys.getrefcount(buffer) == _UNUSED + 1  # the third is the list's
