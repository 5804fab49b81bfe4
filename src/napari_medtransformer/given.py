"""Single values as callers hand them over: taken as what they should be, or refused in one line.

Each function says in `what` how the value is called, and raises `refusal` for anything else. Numbers of NumPy and torch
are numbers; texts that look like numbers are texts.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from napari_medtransformer.errors import InvalidOption, MedTransformerError, in_words

T = TypeVar("T")
Refusal = type[MedTransformerError]

# What a value that is no number, or no single one, answers when it is asked to be one.
_NOT_ONE_NUMBER = (TypeError, ValueError, OverflowError, RuntimeError)


def whole(
    given: Any, what: str, refusal: Refusal = InvalidOption, *, least: int | None = None, most: int | None = None
) -> int:
    """A whole number from `least` to `most`, both included; None is no limit."""
    try:
        number = operator.index(given)
    except _NOT_ONE_NUMBER:
        number = None
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        raise refusal(f"{what} is a whole number{_limits(least, most)}, not {in_words(given)}.")
    return number


def real(given: Any, what: str, refusal: Refusal = InvalidOption, *, above: float | None = None) -> float:
    """A finite number, larger than `above` unless that is None."""
    try:
        number = math.nan if isinstance(given, str | bytes) else float(given)
    except _NOT_ONE_NUMBER:
        number = math.nan
    if not math.isfinite(number) or (above is not None and number <= above):
        limit = "" if above is None else f" above {above:g}"
        raise refusal(f"{what} is a finite number{limit}, not {in_words(given)}.")
    return number


def reals(given: Any, count: int, what: str, refusal: Refusal = InvalidOption) -> tuple[float, ...]:
    """So many finite numbers. what: in the plural, such as "the corners (y0, x0, y1, x1)"."""
    try:
        if isinstance(given, str | bytes):
            raise TypeError
        numbers = tuple(real(one, what) for one in given)
    except (*_NOT_ONE_NUMBER, InvalidOption):
        numbers = ()
    if len(numbers) != count:
        raise refusal(f"{what} are {count} finite numbers, not {in_words(given)}.")
    return numbers


def wholes(given: Iterable[Any], what: str, refusal: Refusal = InvalidOption) -> list[int]:
    """Any number of whole numbers. what: in the plural, such as "slices"."""
    try:
        return [operator.index(one) for one in given]
    except _NOT_ONE_NUMBER as error:
        raise refusal(f"{what} are whole numbers in a list, not {in_words(given)}.") from error


def flag(given: Any, what: str, refusal: Refusal = InvalidOption) -> bool:
    """Yes or no: a bool, or 0 or 1."""
    try:
        number = operator.index(given)
    except _NOT_ONE_NUMBER:
        # NumPy's bool is no index.
        number = int(given) if type(given).__name__ in ("bool", "bool_") else -1
    if number not in (0, 1):
        raise refusal(f"{what} is True or False, not {in_words(given)}.")
    return bool(number)


def text(given: Any, what: str, refusal: Refusal = InvalidOption) -> str:
    """A text."""
    if not isinstance(given, str):
        raise refusal(f"{what} is a text, not {in_words(given)}.")
    return given


def one_of(given: Any, choices: Iterable[str], what: str, refusal: Refusal = InvalidOption) -> str:
    """One of some words."""
    known = tuple(choices)
    if not isinstance(given, str) or given not in known:
        raise refusal(f"{what} is one of {', '.join(known)}, not {in_words(given)}.")
    return given


def record(given: Any, kind: type[T], what: str, refusal: Refusal = InvalidOption) -> T:
    """A record of a certain kind. what: which, and where it comes from, such as "a Request, as add_prompt gives"."""
    if not isinstance(given, kind):
        raise refusal(f"{what} was expected, not {in_words(given)}.")
    return given


def path(given: Any, what: str, refusal: Refusal = InvalidOption) -> Path:
    """A path: a text or a PathLike of texts, without a NUL."""
    try:
        found = os.fspath(given)
    except TypeError:
        found = b""
    if not isinstance(found, str) or "\0" in found:
        raise refusal(f"{what} is given by its path, a text or a Path, not by {in_words(given)}.")
    return Path(found)


def _limits(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f" of {least} or more"
    return "" if most is None else f" of {most} or less"
