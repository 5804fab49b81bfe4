"""The line of moments that undo walks along: every step as what it changed, the oldest ones on disk if they are many.

A step keeps only the slices that it changed, so unlimited undo costs kilobytes per step; beyond a budget of memory the
oldest steps are moved to a temporary file, which the system removes with the program.
"""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections import deque
from collections.abc import Callable
from typing import IO, Any, Generic, TypeVar

S = TypeVar("S")

_BUDGET_BYTES = 256_000_000


class Spool:
    """Objects put aside in a temporary file of this program's own, which nobody else can see."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def put(self, value: Any) -> tuple[int, int] | None:
        """Where the object lies in the file; None, with a warning, if the disk does not take it."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="medtransformer-undo-")  # noqa: SIM115 - lives with self
            at = self._file.seek(0, 2)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            warnings.warn(f"old undo steps stay in memory, the disk does not take them: {error}", stacklevel=2)
            return None
        return at, len(data)

    def get(self, place: tuple[int, int]) -> Any:
        """The object at a place that `put` gave."""
        if self._file is None:
            raise LookupError("nothing was put aside")
        self._file.seek(place[0])
        return pickle.loads(self._file.read(place[1]))


class Shelf(Generic[S]):
    """Values by number; beyond a budget of bytes the ones put first lie on disk. size: how many bytes a value takes."""

    def __init__(self, size: Callable[[S], int], budget_bytes: int = _BUDGET_BYTES) -> None:
        self.bytes_in_memory = 0
        self.budget_bytes = budget_bytes
        self._size = size
        self._values: dict[int, S] = {}
        self._away: dict[int, tuple[int, int]] = {}
        self._order: deque[int] = deque()
        self._spool = Spool()

    def put(self, number: int, value: S) -> None:
        """Keep a value under a number that is not taken."""
        self._values[number] = value
        self._order.append(number)
        self.bytes_in_memory += self._size(value)
        while self.bytes_in_memory > self.budget_bytes and len(self._order) > 1:
            oldest = self._order.popleft()
            if oldest not in self._values:
                continue
            place = self._spool.put(self._values[oldest])
            if place is None:
                self._order.appendleft(oldest)
                return
            self._away[oldest] = place
            self.bytes_in_memory -= self._size(self._values.pop(oldest))

    def get(self, number: int) -> S:
        """The value of a number."""
        if number in self._values:
            return self._values[number]
        value: S = self._spool.get(self._away[number])
        return value

    def drop(self, number: int) -> None:
        """Forget a value."""
        value = self._values.pop(number, None)
        if value is not None:
            self.bytes_in_memory -= self._size(value)
            if self._order and self._order[-1] == number:
                self._order.pop()
        self._away.pop(number, None)


class Whole(Generic[S]):
    """How a step is kept when nothing is known of the states: both of them."""

    @staticmethod
    def difference(before: S, after: S) -> Any:
        """What leads from one to the other and back."""
        return before, after

    @staticmethod
    def applied(state: S, step: Any, forward: bool) -> S:
        """The state after the step, or before it."""
        result: S = step[1 if forward else 0]
        return result

    @staticmethod
    def size(step: Any) -> int:
        """How many bytes the step takes, about."""
        return 100


class History(Generic[S]):
    """A present, everything before it, and what was undone. Nothing is forgotten.

    kind: how a step is told from two states, applied and measured. budget_bytes: of memory for steps.
    """

    def __init__(self, start: S, kind: Any = Whole, budget_bytes: int = _BUDGET_BYTES) -> None:
        self.present = start
        self._kind = kind
        self._steps: Shelf[Any] = Shelf(kind.size, budget_bytes)
        self._at = 0
        self._end = 0

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back and nothing was done since."""
        return self._at < self._end

    @property
    def bytes_in_memory(self) -> int:
        """About how much memory the steps take."""
        return self._steps.bytes_in_memory

    def push(self, state: S) -> None:
        """A new present; what was undone cannot be redone any more."""
        for number in range(self._end - 1, self._at - 1, -1):
            self._steps.drop(number)
        self._steps.put(self._at, self._kind.difference(self.present, state))
        self._at = self._end = self._at + 1
        self.present = state

    def undo(self) -> bool:
        """One step back; False at the beginning."""
        if not self.can_undo:
            return False
        self._at -= 1
        self.present = self._kind.applied(self.present, self._steps.get(self._at), forward=False)
        return True

    def redo(self) -> bool:
        """One step forward again; False if nothing was undone."""
        if not self.can_redo:
            return False
        self.present = self._kind.applied(self.present, self._steps.get(self._at), forward=True)
        self._at += 1
        return True
