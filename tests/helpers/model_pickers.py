"""What tests of the model picker do with one."""

from __future__ import annotations

from typing import Any

PATIENCE_MS = 60_000


def select(picker: Any, name: str) -> None:
    """Click a model in the list of a ModelPicker."""
    picker.list.tree.setCurrentItem(picker.list.tree.topLevelItem(picker.list.names.index(name)))
