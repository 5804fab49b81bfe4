"""Whether a folder's checkpoints come from the training that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_medtransformer.errors import UnreadableWeights, in_words

_SHOWN = 3  # differences named in a message before "and n more"


def check_identity(saved: Mapping[str, Any], wanted: Mapping[str, Any], place: Path) -> None:
    """Raise UnreadableWeights, naming `place` and what differs, if `saved` is another training than `wanted`.

    Both as JSON reads them. What `saved` does not tell, as that of an earlier version, is not compared.
    """
    noted = _flat(saved)
    other = [
        f"{what} {_told(noted[what])}, not {_told(value)}"
        for what, value in _flat(wanted).items()
        if what in noted and noted[what] != value
    ]
    if other:
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise UnreadableWeights(
            f"{place} belongs to another training: it has {'; '.join(other[:_SHOWN])}{more}. "
            "Train into another folder (--output), or remove it to begin anew."
        )


def _told(value: object) -> str:
    return "unset" if value is None else in_words(value)


def _flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The values of a nested mapping by the words that lead to them: {"first schedule steps": 100, …}."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        words = f"{before}{name.replace('_', ' ')}"
        flat |= _flat(value, f"{words} ") if isinstance(value, Mapping) else {words: value}
    return flat
