"""The options of an automatic run: every one has a default that suits a first try."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLabel, QWidget

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.plugin.widgets.style import GAP, quiet_style, row
from napari_medtransformer.plugin.widgets.theming import dress

_PRECISIONS = (
    ("as the device likes", "auto"),
    ("float32, exact", "float32"),
    ("bfloat16, fast", "bfloat16"),
    ("float16, GPU only", "float16"),
)
_PLANES = (("axial slices", 0), ("coronal slices", 1), ("sagittal slices", 2), ("all three, voted", "all"))
_MIRRORED = (("up–down", 0), ("front–back", 1), ("left–right", 2))


class SegmentOptionsForm(QWidget):
    """Overlap, mirrored passes, number format, uncertainty; the plane for models of slices."""

    def __init__(self) -> None:
        super().__init__()
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(GAP)
        self.overlap = QDoubleSpinBox()
        self.overlap.setRange(0.0, 0.75)
        self.overlap.setSingleStep(0.05)
        self.overlap.setValue(0.25)
        self.overlap.setToolTip("The share of a window that its neighbours cover too: 0.25 is usual, 0.5 is smoother")
        form.addRow(_caption("Overlap"), self.overlap)
        self.mirror = {axis: QCheckBox(text) for text, axis in _MIRRORED}
        for box in self.mirror.values():
            box.setToolTip(
                "Also look at the windows mirrored and average: steadier, and each axis doubles the time.\n"
                "Only along axes that the model was trained with: others it sees upside down and is wrong about.\n"
                "Leave left–right alone where structures are named left and right."
            )
        form.addRow(_caption("Mirrored"), row(*self.mirror.values(), None))
        self.precision = QComboBox()
        for text, value in _PRECISIONS:
            self.precision.addItem(text, value)
        self.precision.setToolTip("What the network computes in")
        form.addRow(_caption("Numbers"), self.precision)
        self.plane = QComboBox()
        for text, plane in _PLANES:
            self.plane.addItem(text, plane)
        self.plane.setToolTip("Which slices a model of slices sees")
        self._plane_caption = _caption("Plane")
        form.addRow(self._plane_caption, self.plane)
        self.uncertainty = QCheckBox("show where the model is unsure")
        self.uncertainty.setToolTip("A layer of entropy, and with mirrored passes a hidden one of where they disagree")
        form.addRow(_caption("Doubt"), self.uncertainty)
        self.skip_air = QCheckBox("leave out windows of air")
        self.skip_air.setChecked(True)
        self.skip_air.setToolTip("For models whose card says what air is")
        self._air_caption = _caption("Air")
        form.addRow(self._air_caption, self.skip_air)
        self.offer(None)

    def offer(self, card: ModelCard | None) -> None:
        """Show what means something for a model."""
        flat = card is not None and card.dimensions == 2
        for widget in (self.plane, self._plane_caption):
            widget.setVisible(flat)
        for widget in (self.skip_air, self._air_caption):
            widget.setVisible(card is not None and card.air_below is not None)
        known = None if card is None else card.input.mirrored
        for axis, box in self.mirror.items():
            box.setEnabled(known is None or axis in known)
            box.setChecked(box.isChecked() and box.isEnabled())

    def values(self) -> dict[str, Any]:
        """Keyword arguments for `segment_steps`."""
        return {
            "overlap": round(self.overlap.value(), 3),
            "mirror": tuple(axis for axis, box in self.mirror.items() if box.isChecked()),
            "dtype": self.precision.currentData(),
            "uncertainty": self.uncertainty.isChecked(),
            "plane": self.plane.currentData(),
            "skip_air": self.skip_air.isChecked(),
        }


def _caption(text: str) -> QLabel:
    label = QLabel(text)
    dress(label, quiet_style)
    return label
