"""One model's card: what it is, what it was trained on, what it costs."""

from __future__ import annotations

from html import escape

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QColor, QDesktopServices, QPalette
from qtpy.QtWidgets import QComboBox, QLabel, QProgressBar, QTextBrowser, QVBoxLayout, QWidget

from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.memory import DeviceMemory
from napari_medtransformer.models.words import model_card_text, size_in_words, weights_in_words
from napari_medtransformer.plugin.widgets.icons import theme_colour
from napari_medtransformer.plugin.widgets.style import (
    AMBER,
    GAP,
    NEGATIVE,
    POSITIVE,
    QUERY,
    QuietLabel,
    quiet_colour,
    quiet_style,
    row,
)
from napari_medtransformer.plugin.widgets.theming import dress

_TIGHT = 0.8  # of the free memory, from which on other programs feel it
_LABELS_SHOWN = 12
_CARD_SCHEME = "card"  # of links inside the text
DEVICE_NAMES = {"auto": "Automatic", "cpu": "Processor", "mps": "Apple GPU"}
DTYPE_NAMES = {"auto": "Automatic", "float32": "float32", "bfloat16": "bfloat16 (half)", "float16": "float16 (half)"}


class ModelDetails(QWidget):
    """A card as text, where it is to run, and the memory it needs beside what is free."""

    def __init__(self) -> None:
        super().__init__()
        self.text = QTextBrowser()
        self.text.setOpenLinks(False)
        palette = self.text.palette()
        palette.setColor(QPalette.ColorRole.Link, QColor(QUERY))
        self.text.setPalette(palette)
        self.text.anchorClicked.connect(self._follow)
        self._card: ModelCard | None = None
        self.text.setMinimumWidth(360)
        self.device = QComboBox()
        self.device.setToolTip("Where the model runs. Automatic takes a GPU if there is one.")
        self.dtype = QComboBox()
        self.dtype.setToolTip(
            "What the network calculates in. Automatic: half precision for large models where the device has units\n"
            "for it, float32 elsewhere. Half precision takes less memory; masks change a little."
        )
        for name, text in DTYPE_NAMES.items():
            self.dtype.addItem(text, name)
        self.memory = QProgressBar()
        self.memory.setTextVisible(False)
        self.memory.setFixedHeight(6)
        self.memory.setRange(0, 1000)
        self.memory_line = QuietLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP)
        layout.addWidget(self.text, 1)
        layout.addLayout(row(_caption("Runs on"), self.device, _caption("in"), self.dtype, None))
        layout.addWidget(self.memory)
        layout.addWidget(self.memory_line)
        self.show_devices(("cpu",))

    def show_devices(self, devices: tuple[str, ...]) -> None:
        """Offer these devices, by torch's names."""
        kept = self.device.currentData() or "auto"
        self.device.clear()
        for name in ("auto", *devices):
            self.device.addItem(DEVICE_NAMES.get(name, name.upper().replace(":", " ")), name)
        self.device.setCurrentIndex(max(0, self.device.findData(kept)))

    def show_card(self, card: ModelCard | None) -> None:
        """Describe a model, or nothing."""
        self._card = card
        html = "" if card is None else card_html(card)
        if html != self.text.property("medt_shown"):  # a download's progress must not scroll the text back up
            self.text.setProperty("medt_shown", html)
            self.text.setHtml(html)

    def _follow(self, url: QUrl) -> None:
        if url.scheme() != _CARD_SCHEME:
            QDesktopServices.openUrl(url)
        elif self._card is not None and url.path() == "text":
            self.text.setMarkdown(f"[← back]({_CARD_SCHEME}:back)\n\n{model_card_text(self._card)}")
        else:
            self.text.setProperty("medt_shown", "")
            self.show_card(self._card)

    def show_memory(self, card: ModelCard | None, memory: DeviceMemory | None, where: str) -> None:
        """Compare what a model needs with what is free. where: the device, in words."""
        if card is None or memory is None:
            self.memory.setValue(0)
            self.memory_line.setText("")
            return
        free = f"{memory.free / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free on {where}"
        if card.memory_bytes is None:
            self.memory.setValue(0)
            self.memory_line.setText(f"Memory needed: not known; {free}.")
            return
        share = card.memory_bytes / max(1, memory.free)
        colour = NEGATIVE if share > 1 else AMBER if share > _TIGHT else POSITIVE
        self.memory.setStyleSheet(
            f"QProgressBar {{ border: none; border-radius: 3px; background: {theme_colour('foreground')}; }}"
            f"QProgressBar::chunk {{ background: {colour}; border-radius: 3px; }}"
        )
        self.memory.setValue(round(1000 * min(1.0, share)))
        short = " Close other programs, or choose half precision or a smaller model." if share > 1 else ""
        self.memory_line.setText(f"Needs about {size_in_words(card.memory_bytes)} in float32; {free}.{short}")


def card_html(card: ModelCard) -> str:
    """A card as rich text."""
    size = " × ".join(map(str, card.input.size))
    spacing = card.input.spacing_mm
    voxels = "" if spacing is None else f" of {' × '.join(f'{s:g}' for s in spacing)} mm"
    unit = "pixels" if card.dimensions == 2 else "voxels"
    labels = [label.name for label in card.labels]
    more = f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else ""
    pinned = " (hash pinned at first download)" if _without_hash(card) else ""
    rows = {
        "Name": card.name,
        "Task": _task(card),
        "Finds": ", ".join(labels[:_LABELS_SHOWN]) + more if labels else "",
        "Images": ", ".join(card.modalities) or "any",
        "Anatomy": ", ".join(card.anatomy),
        "Training data": card.training,
        "Input": f"{size} {unit}{voxels}; {card.input.intensities}",
        "Weights": weights_in_words(card).replace("with --weights", "from a file") + pinned,
        "Licence": card.licence,
        "Cite": card.citation,
    }
    link = f"<p><a style='color: {QUERY};' href='{_CARD_SCHEME}:text'>What it was trained on, how well it does</a></p>"
    cells = "".join(
        f"<tr><td style='color: {quiet_colour()}; padding-right: 12px;'>{name}</td><td>{escape(text)}</td></tr>"
        for name, text in rows.items()
        if text
    )
    return (
        f"<p style='font-size: 15px; font-weight: 600;'>{escape(card.title)}</p>"
        f"<p>{escape(card.description)}</p><p></p><table cellspacing='0' cellpadding='2'>{cells}</table>"
        f"{link if model_card_text(card) else ''}"
    )


def _task(card: ModelCard) -> str:
    if card.task == "automatic":
        return f"names structures by itself, {card.dimensions}D"
    return "answers clicks and boxes, 2D" if card.dimensions == 2 else "answers clicks on any slice in 3D"


def _without_hash(card: ModelCard) -> bool:
    return isinstance(card.weights, WeightsSource) and card.weights.sha256 is None


def _caption(text: str) -> QLabel:
    label = QLabel(text)
    dress(label, quiet_style)
    label.setAlignment(Qt.AlignmentFlag.AlignVCenter)
    return label
