"""A combo box of the labelled structures on the slice that is asked about."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal

from napari_medtransformer.plugin.attention.organs import Organ
from napari_medtransformer.plugin.widgets.choices import Choice


class OrganChoice(Choice):
    """Shows organs by name, with their layer where there are several. organ_chosen: an Organ."""

    organ_chosen = Signal(object)

    def __init__(self, tooltip: str) -> None:
        super().__init__(tooltip, letters=8)
        self.setPlaceholderText("no label on this slice")
        self._organs: list[Organ] = []
        self.activated.connect(lambda place: self.organ_chosen.emit(self._organs[place]))

    def show_organs(self, organs: Sequence[Organ], chosen: Organ | None) -> None:
        """Show these and the choice; nothing is emitted."""
        if [(o.key, o.name) for o in organs] != [(o.key, o.name) for o in self._organs]:
            self.clear()
            several = len({organ.layer_name for organ in organs}) > 1
            for organ in organs:
                self.addItem(f"{organ.name} ({organ.layer_name})" if several else organ.name)
        self._organs = list(organs)
        keys = [organ.key for organ in organs]
        self.setCurrentIndex(keys.index(chosen.key) if chosen is not None and chosen.key in keys else -1)
        self.setEnabled(bool(organs))

    def choose(self, text: str) -> None:
        """Choose by what is shown, as a user would. Raises ValueError if it is not there."""
        place = [self.itemText(i) for i in range(self.count())].index(text)
        self.setCurrentIndex(place)
        self.activated.emit(place)
