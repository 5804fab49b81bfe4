"""Long work is a generator of Progress | Partial | Result; whoever drives it may stop at any yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far the work is: `done` of `total` steps (total None while unknown)."""

    done: int
    total: int | None
    message: str = ""


@dataclass(frozen=True)
class Partial(Generic[T]):
    """Something worth showing before the end, such as the labels of one slice."""

    value: T


@dataclass(frozen=True)
class Result(Generic[T]):
    """The outcome; the last thing a generator yields."""

    value: T


Steps = Iterator[Progress | Partial[Any] | Result[T]]


def run_to_end(steps: Steps[T], on_progress: Callable[[Progress], None] | None = None) -> T:
    """Drive `steps` to their Result and return its value, passing every Progress on."""
    for step in steps:
        if isinstance(step, Result):
            return step.value
        if isinstance(step, Progress) and on_progress is not None:
            on_progress(step)
    raise RuntimeError("the steps ended without a Result")
