"""The Segment dock: choose a model and a region, press Segment, watch labels appear, measure, correct, compare."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtWidgets import QFileDialog, QSizePolicy, QVBoxLayout, QWidget

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.plugin.controller import controller_of, real_viewer
from napari_medtransformer.plugin.layer_volume import frames_of
from napari_medtransformer.plugin.models.row import ModelRow
from napari_medtransformer.plugin.models.slot import ModelSlot
from napari_medtransformer.plugin.notify import report, reported
from napari_medtransformer.plugin.segment.options import SegmentOptionsForm
from napari_medtransformer.plugin.segment.organ_table import StructureTable, show_agreement, show_organs
from napari_medtransformer.plugin.segment.refining import Refining
from napari_medtransformer.plugin.segment.region import region_in_words, region_layer, region_layers, region_of
from napari_medtransformer.plugin.segment.state import TOLERANCE_MM, SegmentState
from napari_medtransformer.plugin.volume.facts import labels_on
from napari_medtransformer.plugin.widgets.choices import Choice, allow, letting_go, offer
from napari_medtransformer.plugin.widgets.columns import MARGIN, stacked
from napari_medtransformer.plugin.widgets.layer_choice import LayerChoice
from napari_medtransformer.plugin.widgets.steady import CalmBar
from napari_medtransformer.plugin.widgets.style import (
    Column,
    QuietLabel,
    folding,
    row,
    section,
    tool_button,
    warning_style,
)
from napari_medtransformer.plugin.widgets.theming import ThemeFollower, dress
from napari_medtransformer.plugin.work import WorkQueue

if TYPE_CHECKING:
    import napari

DEFAULT_MODEL = "medt-hippocampus"
_WHOLE = "Whole volume"


def segments_volumes(card: ModelCard) -> bool:
    """Whether a model names structures by itself."""
    return card.task == "automatic"


class SegmentDock(QWidget):
    """A face of the viewer's SessionController for automatic models; its run lives in a SegmentState."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        viewer = real_viewer(napari_viewer)
        self._viewer = weakref.ref(viewer)
        self.controller = controller_of(viewer)
        self.controller.attach(self)
        # A queue of its own: clicks are answered while a volume is segmented.
        self.queue = WorkQueue()
        self.models = ModelSlot(self.queue)
        self.state = SegmentState(self.controller, self.queue)
        self.refining = Refining(self.controller)
        self._doubts: tuple[str, ...] = ()

        body = stacked(
            self._what_section(),
            self._how_section(),
            self._organs_section(),
            self._compare_section(),
            margin=MARGIN,
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Column(body))

        self.controller.layer_changed.connect(self._on_layer)
        self.models.changed.connect(self._refresh)
        self.models.loaded.connect(self._on_model)
        self.state.changed.connect(self._refresh)
        self.state.progressed.connect(self.progress.tell)
        self.state.measured.connect(self._show_organs)
        self.state.compared.connect(self._show_agreement)
        self.refining.handed_over.connect(self._refresh)
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed):
            emitter.connect(self._on_layers)
        self.destroyed.connect(letting_go(viewer.layers, ("inserted", "removed"), self._on_layers))
        self.destroyed.connect(_closing(self.queue, self.models))
        self.layer_choice.follow(viewer, self.controller)
        self._on_layers()
        self.models.load(DEFAULT_MODEL)
        self._theme = ThemeFollower(viewer, self, self._refresh)
        self._refresh()

    # ------------------------------------------------------------------ building

    def _what_section(self) -> QWidget:
        frame, layout = section("Image and model")
        self.layer_choice = LayerChoice(Image)
        self.layer_choice.setToolTip("The image that is segmented")
        layout.addWidget(self.layer_choice)
        self.model_row = ModelRow(self.models, segments_volumes)
        layout.addWidget(self.model_row)
        self.doubts = QuietLabel()
        dress(self.doubts, warning_style)
        self.doubts.hide()
        layout.addWidget(self.doubts)
        return frame

    def _how_section(self) -> QWidget:
        frame, layout = section("Segment")
        self.regions = Choice("What to segment. Draw a box to save time, or to leave out what the model does not know")
        self.draw = tool_button("box", "Draw a box: rectangles on slices of a Shapes layer", text="Draw")
        self.draw.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.draw.clicked.connect(self._draw_region)
        self.regions.activated.connect(self._on_region)
        layout.addLayout(row(self.regions, self.draw))
        self.region_line = QuietLabel()
        layout.addWidget(self.region_line)
        self.options = SegmentOptionsForm()
        fold, self.fold = folding("Options", self.options, is_open=False)
        for name, widget in (("medtFold", fold), ("medtOptions", self.options)):
            widget.setObjectName(name)
            widget.setStyleSheet(f"QWidget#{name} {{ background: transparent; }}")
        layout.addWidget(fold)
        self.run = tool_button("stack", "", text="Segment")
        self.run.clicked.connect(self.segment)
        self.cancel = tool_button("clear", "Stop; what is done stays", text="Cancel")
        self.cancel.clicked.connect(self.state.cancel)
        self.cancel.hide()
        layout.addLayout(row(self.run, self.cancel))
        self.progress = CalmBar()
        layout.addWidget(self.progress)
        self.line = QuietLabel()
        layout.addWidget(self.line)
        return frame

    def _organs_section(self) -> QWidget:
        frame, layout = section("Structures")
        self.organs = StructureTable(
            ("structure", "ml", "mean", "mm"),
            "Volume, mean value of the image, extent along z, y, x. Double-click to go there.",
        )
        self.whose = QuietLabel()
        dress(self.whose, warning_style)
        layout.addWidget(self.whose)
        self.organs.jumped.connect(self.state.jump_to)
        self.organs.chosen.connect(self._refresh)
        layout.addWidget(self.organs)
        self.refine = tool_button("point", "", text="Refine by clicking")
        self.refine.clicked.connect(self.refine_selected)
        self.save = tool_button("save", "", text="Table…")
        self.save.clicked.connect(self._ask_for_table)
        layout.addLayout(row(self.refine, self.save))
        return frame

    def _compare_section(self) -> QWidget:
        frame, layout = section("Compare with a reference")
        self.references = Choice("Another labels layer on the same image, such as one drawn by hand")
        self.compare = tool_button(None, "", text="Compare")
        self.compare.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.compare.clicked.connect(self._compare)
        layout.addLayout(row(self.references, self.compare))
        self.scores = StructureTable(
            ("structure", "Dice", "HD95 mm", "surface"),
            "Dice; distance within which 95% of the surfaces lie; share of the surfaces within 1 mm of the other.",
        )
        self.scores.jumped.connect(self.state.jump_to)
        self.scores.hide()
        layout.addWidget(self.scores)
        return frame

    # ------------------------------------------------------------------ showing

    def _on_layer(self) -> None:
        self._ask_for_doubts()
        self._on_layers()

    def _on_model(self) -> None:
        self.options.offer(self.models.card)
        self._ask_for_doubts()

    def _on_layers(self, event: Any = None) -> None:
        """Layers came or went: offer boxes and references."""
        viewer = self._viewer()
        layers = list(viewer.layers) if viewer is not None else []
        offer(self.regions, [(_WHOLE, None), *((f"Box: {x.name}", weakref.ref(x)) for x in region_layers(layers))])
        for shapes in region_layers(layers):
            # connecting twice does nothing
            shapes.events.data.connect(self._on_region)
        workspace = self.state.workspace or self.controller.workspace
        known = [] if workspace is None else labels_on(layers, workspace.volume, workspace.layer)
        own = (self.state.layer, None if workspace is None else workspace.masks)
        offer(self.references, [(x.name, weakref.ref(x)) for x in known if x not in own], "no other labels here")
        self._refresh()

    def _on_region(self, event: Any = None) -> None:
        self._ask_for_doubts()
        self._refresh()

    def _ask_for_doubts(self) -> None:
        """Find out in the worker whether the image looks like what the model knows."""
        workspace, card = self.controller.workspace, self.models.card
        self._show_doubts(())
        if workspace is None or card is None or self.models.model is None:
            return
        volume, region = workspace.volume, self.region()

        def find() -> tuple[str, ...]:
            from napari_medtransformer.segmentation.plausibility import doubts

            return tuple(doubts(volume, card, region))

        self.queue.submit(find, label="", key="doubts", on_done=self._show_doubts, on_error=report)

    def _show_doubts(self, doubts: tuple[str, ...]) -> None:
        self._doubts = doubts
        self.doubts.setText("\n".join(f"⚠ {text[0].upper()}{text[1:]}" for text in doubts))
        self.doubts.setVisible(bool(doubts))

    def _refresh(self, event: Any = None) -> None:
        workspace, running = self.controller.workspace, self.state.running
        reason = (
            self.controller.layer_fault
            or ("open a CT or MR volume" if workspace is None else "")
            or self.models.fault
            or ("the model is still loading" if self.models.model is None else "")
        )
        if not reason and self.regions.currentData() is not None and self.region() is None:
            reason = "no box is drawn yet"
        allow(self.run, "Label every structure the model knows", reason or ("it is running" if running else ""))
        self.run.setVisible(not running)
        self.cancel.setVisible(running)
        allow(self.draw, "Drag a rectangle on a slice", "open a CT or MR volume" if workspace is None else "")
        boxed = workspace is not None and self.regions.currentData() is not None
        self.region_line.setVisible(boxed)
        if boxed:
            self.region_line.setText(region_in_words(self.region(), workspace.volume.spacing))
        self.line.setText(self.state.said if not running else "")
        self.line.setToolTip("\n".join(self.state.messages))
        self.line.setVisible(bool(self.line.text()))
        of = self.state.workspace
        elsewhere = of is not None and of is not workspace and (running or bool(self.state.organs))
        frame = f", frame {of.frame}" if elsewhere and frames_of(of.layer) > 1 else ""
        self.whose.setText(f"Of {of.layer.name}{frame}, which is not what you look at." if elsewhere else "")
        self.whose.setVisible(elsewhere)
        there = self.state.layer is not None
        missing = "" if there and self.state.organs else "segment first"
        allow(self.save, "Write names, millilitres, values, boxes and scores as CSV or JSON", missing)
        correct = "Make the selected structures objects of the Prompt dock and correct them there"
        allow(self.refine, correct, missing or ("" if self.organs.numbers else "select a structure above"))
        reference = "" if self.references.count() else "no other labels layer lies on this image"
        allow(self.compare, "Score against it", missing or reference or ("it is running" if running else ""))

    def _show_organs(self) -> None:
        volume = self.state.volume
        unit = "HU" if volume.modality == "CT" else ""
        self.organs.headerItem().setText(2, "mean HU" if unit else "mean")
        show_organs(self.organs, self.state.organs, volume.spacing, unit)
        self.scores.clear()
        self.scores.hide()
        self._on_layers()

    def _show_agreement(self) -> None:
        show_agreement(self.scores, self.state.agreement, TOLERANCE_MM)
        self.scores.show()

    # ------------------------------------------------------------------ doing

    def region(self) -> Any:
        """(start, stop) of the box that is chosen, (z, y, x) voxels; None for the whole volume or an empty layer."""
        reference, workspace = self.regions.currentData(), self.controller.workspace
        shapes = reference() if reference is not None else None
        if shapes is None or workspace is None:
            return None
        return region_of(shapes, workspace.layer, workspace.volume.shape)

    def segment(self) -> None:
        """Segment the chosen image, or its box, with the chosen model and options."""
        if self.models.model is None or self.controller.workspace is None:
            return
        self.organs.clear()
        self.scores.clear()
        self.scores.hide()
        with reported():
            self.state.start(self.models.model, region=self.region(), **self.options.values())

    def refine_selected(self) -> None:
        """Hand the selected structures to the Prompt dock; their labels give way to the objects made of them."""
        numbers = self.organs.numbers
        if self.state.layer is not None and numbers and self.state.turn_to_image():
            structures = [self.state.mask_of(number) for number in numbers]
            self.state.hide_labels(numbers)
            self.refining.hand_over(structures)

    def _draw_region(self) -> None:
        viewer, workspace = self._viewer(), self.controller.workspace
        if viewer is None or workspace is None:
            return
        shapes = region_layer(workspace.layer)
        viewer.add_layer(shapes)
        viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"
        self.regions.setCurrentIndex(self.regions.findText(f"Box: {shapes.name}"))
        self._refresh()

    def _compare(self) -> None:
        reference = self.references.currentData()
        layer = reference() if reference is not None else None
        if layer is not None:
            self.state.compare(layer)

    def _ask_for_table(self) -> None:
        volume = self.state.volume
        folder = volume.source.path.parent if volume.source is not None else Path.cwd()
        suggestion = str(folder / f"{volume.name}_structures.csv")
        path, _ = QFileDialog.getSaveFileName(self, "Structures", suggestion, "Table (*.csv);;JSON (*.json)")
        if path:
            with reported():
                self.state.save_table(path)


def _closing(queue: WorkQueue, models: ModelSlot) -> Callable[[], None]:
    """A function that stops a dock's work: it keeps both alive until the dock is gone, and holds no widget."""

    def close() -> None:
        queue.close()
        models.close()

    return close
