"""A run of an automatic model over the chosen volume: its layers as they fill, its measures, and what follows."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medtransformer.plugin.layer_volume import world_of_voxel
from napari_medtransformer.plugin.notify import report, tell, warn
from napari_medtransformer.plugin.planes import show_frame
from napari_medtransformer.plugin.segment.layers import colours_of, heat_layer, structures_layer
from napari_medtransformer.plugin.segment.organ_table import Organ
from napari_medtransformer.plugin.turns import Turns
from napari_medtransformer.plugin.work import Job, WorkQueue
from napari_medtransformer.progress import Progress, Steps
from napari_medtransformer.volumes import Volume, label_statistics
from napari_medtransformer.volumes.label_table import Label, write_label_table
from napari_medtransformer.volumes.places import label_places

if TYPE_CHECKING:
    from napari_medtransformer.models.base import AutomaticModel
    from napari_medtransformer.models.card import ModelCard
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.workspace import Workspace
    from napari_medtransformer.segmentation import FinishedSlab, Segmentation
    from napari_medtransformer.segmentation.evaluation import Agreement

REFRESH_MS = 100
"""New parts are shown this often at most: a quick model finishes more of them than anybody sees."""
TOLERANCE_MM = 1.0
"""Surfaces this near to one another count as the same: a voxel of most scans."""


class SegmentState(QObject):
    """One run at a time; belongs to a dock and the window's thread. Holds its layers weakly: the viewer owns them."""

    changed = Signal()
    progressed = Signal(object)  # a Progress, or None when nothing runs
    measured = Signal()
    compared = Signal()

    def __init__(self, controller: SessionController, queue: WorkQueue) -> None:
        super().__init__()
        self._controller = controller
        self._queue = queue
        self._job: Job | None = None
        self._follow_up: Job | None = None
        self._layer: weakref.ref[Labels] | None = None
        self._workspace: weakref.ref[Workspace] | None = None
        self._labels: np.ndarray | None = None
        self._started = 0.0
        self._finishing = False
        self._revision = 0
        self.volume: Volume | None = None
        self.card: ModelCard | None = None
        self.seconds = 0.0
        self.slabs = 0
        self.said = ""  # how the last run ended
        self.messages: tuple[str, ...] = ()
        self.organs: list[Organ] = []
        self.agreement: list[Agreement] = []
        self._refresh_timer = QTimer(self)
        self._refresh_timer.setSingleShot(True)
        self._refresh_timer.setInterval(REFRESH_MS)
        self._refresh_timer.timeout.connect(self._show_labels)
        self._turns = Turns(lambda: not self._is_gone())

    @property
    def running(self) -> bool:
        """Whether a volume is being segmented."""
        return self._job is not None

    @property
    def layer(self) -> Labels | None:
        """The layer with the labels, if it is still in the viewer."""
        layer = self._layer() if self._layer is not None else None
        viewer = self._controller.viewer
        return layer if layer is not None and viewer is not None and layer in viewer.layers else None

    @property
    def workspace(self) -> Workspace | None:
        """The volume that is or was segmented, if its image is still in the viewer."""
        workspace = self._workspace() if self._workspace is not None else None
        viewer = self._controller.viewer
        there = workspace is not None and viewer is not None and workspace.layer in viewer.layers
        return workspace if there else None

    @property
    def names(self) -> list[Label]:
        """Names and colours of the model's labels."""
        return [] if self.card is None else [Label(x.value, x.name, x.color) for x in self.card.labels]

    # ------------------------------------------------------------------ running

    def start(self, model: AutomaticModel, **options: Any) -> None:
        """Segment the chosen image; options as for `segment_steps`. What ran before stays as it is."""
        workspace = self._controller.workspace
        if workspace is None or self.running:
            return
        self._turns.take_all()  # a run that was cancelled may still be showing what it had
        self._revision += 1
        self._layer, self._labels = None, None
        self._workspace = weakref.ref(workspace)
        self.volume, self.card = workspace.volume, model.card
        self.organs, self.agreement, self.messages, self.slabs, self.said = [], [], (), 0, ""
        self._started, self._finishing = time.monotonic(), False
        volume, frames = workspace.volume, self._controller.view.frames

        def steps() -> Steps[Segmentation]:
            """On the processor, the network rests between two layers while the window draws with the same cores."""
            from napari_medtransformer.models.encoding import between_layers
            from napari_medtransformer.segmentation import segment_steps

            shares = model.device.type == "cpu" and not options.get("compile")  # compiled, it is one layer
            with between_layers(model, frames.rest) if shares else nullcontext():
                yield from segment_steps(model, volume, **options)

        self._job = self._queue.submit_steps(
            steps,
            label=f"{model.card.name} segments {workspace.layer.name}…",
            on_progress=self._on_progress,
            on_partial=self._on_slab,
            on_done=self._on_result,
            on_error=self._on_error,
        )
        self.progressed.emit(Progress(0, None, "starting"))
        self.changed.emit()

    def cancel(self) -> None:
        """Stop; what is done stays. A run whose last window is done just ends."""
        if self._job is None or self._finishing:
            return
        self._job.cancel()
        parts = "1 finished part is" if self.slabs == 1 else f"{self.slabs} finished parts are"
        kept = f"{parts} kept" if self.slabs else "nothing was finished yet"
        self._end(f"Cancelled after {time.monotonic() - self._started:.0f} s; {kept}.")
        if self.slabs:
            self._measure()

    def _is_gone(self) -> bool:
        """Whether the image was closed meanwhile; then the run is over, as there is nothing to show labels on."""
        if self.workspace is not None:
            return False
        if self._job is not None:
            self._job.cancel()
            self._end("Stopped: the image was closed.")
        return True

    def _on_progress(self, progress: Progress) -> None:
        if self._is_gone():
            return
        self.progressed.emit(Progress(progress.done, progress.total, self._remaining(progress)))

    def _remaining(self, progress: Progress) -> str:
        """What the bar says: which window, and how long it will still take."""
        if not progress.total or not progress.done:
            return progress.message or "starting"
        left = (time.monotonic() - self._started) / progress.done * (progress.total - progress.done)
        clock = f"{int(left) // 60}:{int(left) % 60:02d}"
        return f"window {progress.done} of {progress.total} · {clock} left"

    def _on_slab(self, slab: FinishedSlab) -> None:
        if self._is_gone():
            return
        if self._labels is None:
            self._make_layer(slab.labels.dtype)
        (z0, y0, x0), (z1, y1, x1) = slab.start, slab.stop
        self._labels[z0:z1, y0:y1, x0:x1] = slab.labels
        self.slabs += 1
        if not self._refresh_timer.isActive() and self._is_on_screen(slab):
            self._refresh_timer.start()

    def _is_on_screen(self, slab: FinishedSlab) -> bool:
        """Whether a slab crosses the slice that is shown; in 3D every one does."""
        viewer, layer = self._controller.viewer, self.layer
        if viewer is None or layer is None or layer.ndim < 3:
            return True
        at = np.rint(np.asarray(layer.world_to_data(viewer.dims.point), dtype=float)[-3:])
        hidden = [axis - (viewer.dims.ndim - 3) for axis in viewer.dims.not_displayed]
        return all(slab.start[axis] <= at[axis] < slab.stop[axis] for axis in hidden if axis >= 0)

    def _show_labels(self) -> None:
        """Draw the labels as they are now: neither where they lie nor the small picture in the list is worked out."""
        layer = self.layer
        if layer is not None:
            layer.refresh(extent=False, thumbnail=False, highlight=False)

    def _on_result(self, result: Segmentation) -> None:
        """Every voxel of the labels came as part of a slab; what is left is uncertainty, a layer at a time."""
        if self._is_gone():
            return
        if self._labels is None:
            self._make_layer(result.labels.dtype)
        self.messages, self._finishing = result.messages, True
        if result.disagreement is not None:
            self._turns.later(lambda: self._add_heat(result.disagreement, "disagreement", 1.0, visible=False))
        if result.entropy is not None:
            highest = float(np.log(len(self.names) + 1))
            self._turns.later(lambda: self._add_heat(result.entropy, "uncertainty", highest, visible=True))
        self._turns.later(lambda: self._finish(result))

    def _finish(self, result: Segmentation) -> None:
        if self._turns:  # the layers that were made meanwhile come first
            self._turns.later(lambda: self._finish(result))
            return
        layer = self.layer
        if layer is not None:
            layer.refresh(extent=False, highlight=False)
        self.seconds = time.monotonic() - self._started
        windows = f"{result.windows} windows" if result.windows != 1 else "1 window"
        self._end(f"{windows} in {self.seconds:.1f} s.")
        self._measure()

    def _on_error(self, error: Exception) -> None:
        self._end(f"Stopped: {error}")
        report(error)

    def _end(self, said: str) -> None:
        self._job, self.said = None, said
        self.progressed.emit(None)
        self.changed.emit()

    # ------------------------------------------------------------------ layers

    def _make_layer(self, dtype: Any) -> None:
        self._labels = np.zeros(self.volume.shape, dtype)
        workspace = self.workspace
        if workspace is None:
            return
        name = f"{workspace.layer.name} {self.card.name}"
        layer = structures_layer(self._labels, workspace.layer, self.volume, name, self.names)
        self._layer = weakref.ref(layer)  # before others hear of the layer: it is no reference to compare with
        self._add(layer)

    def _add_heat(self, values: np.ndarray, what: str, highest: float, *, visible: bool) -> None:
        workspace = self.workspace
        if workspace is not None:
            image = workspace.layer
            self._add(heat_layer(values, image, self.volume, f"{image.name} {what}", highest), visible=visible)

    def _add(self, layer: Labels | Image, *, visible: bool = True) -> None:
        """Add a layer right above its image: it comes in one turn, and is first drawn in another."""
        layer.visible = False
        frames = self._controller.view.frames
        frames.expect()

        def come() -> None:
            frames.expect()
            if self.workspace is not None:
                self.workspace.add_result(layer)

        def show() -> None:
            frames.expect()
            if self.workspace is not None and visible:
                self.workspace.show_result(layer)

        self._turns.later(come, show)

    # ------------------------------------------------------------------ measuring

    def _measure(self) -> None:
        shown, volume, names, revision = self._labels, self.volume, self.names, self._revision

        def organs() -> list[Organ]:
            labels = np.array(shown)  # what somebody paints meanwhile is not measured half
            places = label_places(labels)
            return [Organ(one, places[one.label.number]) for one in label_statistics(labels, volume, names)]

        def done(found: list[Organ]) -> None:
            if revision == self._revision:
                self.organs = found
                self.measured.emit()

        self._follow_up = self._queue.submit(
            organs, label="Measuring…", key="measure organs", on_done=done, on_error=report
        )

    def compare(self, reference: Labels) -> None:
        """Score the labels against those of another layer on the same grid."""
        layer, volume, revision = self.layer, self.volume, self._revision
        if layer is None or volume is None:
            return
        found, wanted = np.asarray(layer.data), np.asarray(reference.data)
        if found.ndim == 2:
            found, wanted = found[None], wanted[None]
        self.agreement = []

        def scored() -> list[Agreement]:
            from napari_medtransformer.segmentation.evaluation import agreement

            return agreement(found, wanted, volume.spacing, tolerance_mm=TOLERANCE_MM, names=self.names)

        def done(scores: list[Agreement]) -> None:
            if revision == self._revision:
                known = {label.number for label in self.names}
                ours = [one for one in scores if one.label.number in known]
                self.agreement = ours or scores
                self.compared.emit()

        self.progressed.emit(Progress(0, None, "comparing"))
        self._queue.submit(
            scored,
            label="Comparing…",
            key="compare labels",
            on_done=done,
            on_error=report,
            on_end=lambda: self.progressed.emit(None) if not self.running else None,
        )

    def save_table(self, path: str | Path) -> None:
        """Write the structures with all their numbers as CSV or JSON, by the suffix. Raises CannotWrite."""
        by_number = {one.statistics.label.number: one for one in self.organs}
        columns: dict[str, dict[int, Any]] = {
            name: {n: getattr(one.statistics, name) for n, one in by_number.items()}
            for name in ("voxels", "volume_ml", "mean", "std", "low", "high")
        }
        columns["box_start_zyx"] = {n: " ".join(map(str, one.place.start)) for n, one in by_number.items()}
        columns["box_stop_zyx"] = {n: " ".join(map(str, one.place.stop)) for n, one in by_number.items()}
        for score in ("dice", "hd95_mm", "surface_dice"):
            if self.agreement:
                columns[score] = {one.label.number: getattr(one, score) for one in self.agreement}
        missed = [one.label for one in self.agreement if one.label.number not in by_number]
        labels = [*(one.statistics.label for one in self.organs), *missed]
        written = write_label_table(labels, path, **columns)
        tell(f"Saved {written}.")

    # ------------------------------------------------------------------ going there, going on

    def jump_to(self, number: int) -> None:
        """Show the slices through a structure's heart, in the middle of the canvas, on the image that it is of."""
        organ = next((one for one in self.organs if one.statistics.label.number == number), None)
        if organ is None or not self.turn_to_image():
            return
        viewer = self._controller.viewer
        world = world_of_voxel(self.workspace.layer, organ.place.heart)
        first = viewer.dims.ndim - len(world)
        for axis, position in enumerate(world):
            viewer.dims.set_point(first + axis, float(position))
        place = {first + axis: float(position) for axis, position in enumerate(world)}
        _bring_into_view(viewer, [place[axis] for axis in viewer.dims.displayed if axis in place])
        if self.layer is not None:
            self.layer.selected_label = number

    def turn_to_image(self) -> bool:
        """Have the segmented volume worked on and seen, if another one is; whether it is still there."""
        controller, workspace = self._controller, self.workspace
        if workspace is None:
            warn("The image that was segmented is closed; open it again to see its structures.")
            return False
        if controller.workspace is not workspace:
            show_frame(controller.viewer, workspace.layer, workspace.frame)
            controller.turn_to(workspace)
        if controller.in_front.hiding:
            controller.in_front.bring()
        return controller.workspace is workspace

    def hide_labels(self, numbers: Sequence[int]) -> None:
        """Show these labels no more, as long as the layer is there: something else stands for them now."""
        layer = self.layer
        if layer is not None:
            layer.colormap = colours_of(self.names, numbers)

    def mask_of(self, number: int) -> tuple[str, str, np.ndarray]:
        """A structure's name, colour as hex, and mask (z, y, x), as painted now, hand corrections included."""
        label = next(x for x in self.names if x.number == number)
        data = np.asarray(self.layer.data)
        mask = (data if data.ndim == 3 else data[None]) == number
        red, green, blue = (round(255 * part) for part in label.color)
        return label.name, f"#{red:02x}{green:02x}{blue:02x}", mask


def _bring_into_view(viewer: Any, displayed: Sequence[float]) -> None:
    """Move the canvas to a world position on the displayed axes if it lies near or beyond its edge."""
    camera = viewer.scene.camera
    half = [size / float(camera.zoom) / 2 for size in viewer.canvas.size]
    centre = camera.center[-len(displayed) :]
    if any(abs(p - c) > 0.8 * h for p, c, h in zip(displayed, centre, half[-len(displayed) :])):
        camera.center = (0.0,) * (3 - len(displayed)) + tuple(displayed)
