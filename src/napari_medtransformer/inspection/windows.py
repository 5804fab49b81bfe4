"""Looking inside an automatic model where its windows hold a voxel: they run once under the probe, then ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.kept_calls import MEMORY_BYTES
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import PointOutsideVolume
from napari_medtransformer.inspection.place import SlicePlane
from napari_medtransformer.models.base import AutomaticModel, PromptToken
from napari_medtransformer.progress import Progress, Result, Steps, run_to_end
from napari_medtransformer.volumes.intensity import apply_window
from napari_medtransformer.volumes.volume import Volume

Start = tuple[int, int, int]


class Windows(Protocol):
    """The windows of a model in a volume; `segmentation.window_plan.plan_windows` makes them.

    plane: the axis across the slices of a 2D model, None for a 3D model.
    """

    @property
    def model(self) -> AutomaticModel: ...
    @property
    def volume(self) -> Volume: ...
    @property
    def starts(self) -> tuple[Start, ...]: ...
    @property
    def plane(self) -> int | None: ...

    def placement(self, start: Sequence[int]) -> InputPlacement:
        """Where a window lies in the volume or, of a 2D model, in its slice."""
        ...

    def read(self, start: Sequence[int]) -> Tensor:
        """A window as the network takes it: (1, channels, *window) float32."""
        ...


@dataclass(frozen=True, eq=False)
class WindowRuns:
    """Windows that ran, each under a probe of its own."""

    starts: tuple[Start, ...]
    probes: tuple[AttentionProbe, ...]

    @cached_property
    def passes(self) -> dict[str, list[CapturedSite]]:
        """Every site with one capture per window; made once, since a grid's tables take longer than a row."""
        return {site.name: [probe.captured(site) for probe in self.probes] for site in self.probes[0].sites}


@dataclass(frozen=True, eq=False)
class VolumeInspection:
    """Those windows of an automatic model that hold a voxel, run under the probe.

    plane: the slice through the voxel, on which flat pictures are drawn. image: that slice in [0, 1] through the
    volume's window. label: what the model calls the voxel that was inspected, the card's name of it or "background".
    Answers of several windows are stitched; coordinates are the volume's, (z, y, x).
    """

    windows: Windows
    plane: SlicePlane
    runs: WindowRuns
    image: np.ndarray
    label: str

    prompts = None
    prediction = None
    tokens: tuple[PromptToken, ...] = ()

    @property
    def model(self) -> AutomaticModel:
        """The model that was looked into."""
        return self.windows.model

    @property
    def volume(self) -> Volume:
        """The volume its windows lie in."""
        return self.windows.volume

    @property
    def window(self) -> tuple[float, float]:
        """(low, high) of the intensities that `image` shows; the network has its own normalisation."""
        return self.volume.window.low, self.volume.window.high

    @property
    def is_solid(self) -> bool:
        """Whether the model sees three axes, not slices."""
        return self.windows.plane is None

    @property
    def probe(self) -> AttentionProbe:
        """The probe of the last window."""
        return self.runs.probes[-1]

    @property
    def passes(self) -> dict[str, list[CapturedSite]]:
        """Every site with one capture per window that ran."""
        return self.runs.passes

    @cached_property
    def small_images(self) -> dict[int, np.ndarray]:
        """The slice at smaller sizes, kept by whoever draws it again and again: longer side → (rows, columns)."""
        return {}

    @property
    def sites(self) -> list[AttentionSite]:
        """The sites that ran, with the grids of the last window."""
        return [captures[-1].site for captures in self.passes.values()]

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(row, column) spacing of the slice."""
        rows, columns = self.plane.axes
        return self.volume.spacing[rows], self.volume.spacing[columns]

    @property
    def spacing_seen(self) -> tuple[float, ...]:
        """Spacing along the axes that the model sees: (z, y, x) or a slice's rows and columns."""
        return self.volume.spacing if self.is_solid else self.spacing_mm

    def site(self, name: str) -> AttentionSite:
        """The site of that name. Raises UnknownSite, or NothingCaptured if it did not run."""
        return self.captured(name).site

    def captured(self, site: str | AttentionSite) -> CapturedSite:
        """A site with the queries and keys of the last window. Raises UnknownSite or NothingCaptured."""
        name = site if isinstance(site, str) else site.name
        return self.passes[name][-1] if name in self.passes else self.probe.captured(name)

    def seen(self, zyx: tuple[float, float, float]) -> tuple[float, ...]:
        """A voxel along the axes that the model sees. Raises PointOutsideVolume off a 2D model's slice."""
        return zyx if self.is_solid else self.plane.in_slice(zyx)

    def holds(self, zyx: tuple[float, float, float]) -> bool:
        """Whether the windows that hold a voxel are those that ran."""
        return set(starts_holding(self.windows, zyx)) == set(self.runs.starts)

    def at(self, zyx: tuple[float, float, float], axis: int) -> VolumeInspection:
        """The same windows seen on the slice of another voxel that they hold; `label` stays that of the first."""
        plane, image = _slice_of(self.windows, zyx, axis)
        return replace(self, plane=plane, image=image)

    def on_slice(self, array: np.ndarray) -> np.ndarray:
        """An array of the volume or of the slice, as one of the slice. Raises PointOutsideVolume for another shape."""
        array = np.asarray(array)
        if array.shape == self.volume.shape:
            return self.plane.of(array)
        if array.shape == self.image.shape:
            return array
        raise PointOutsideVolume(
            f"an array of shape {array.shape}; expected the volume's {self.volume.shape} or the slice's "
            f"{self.image.shape}."
        )

    def as_seen(self, array: np.ndarray) -> np.ndarray:
        """An array of the volume along the axes that the model sees; of a 2D model, its slice."""
        return np.asarray(array) if self.is_solid else self.on_slice(array)


def starts_holding(windows: Windows, zyx: tuple[float, float, float]) -> tuple[Start, ...]:
    """The windows that hold a voxel. Raises PointOutsideVolume if none does: it lies outside the volume or region."""
    voxel = tuple(round(c) for c in zyx)
    if any(not 0 <= c < n for c, n in zip(voxel, windows.volume.shape, strict=True)):
        raise PointOutsideVolume(f"{tuple(zyx)} lies outside the volume of {windows.volume.shape} (z, y, x) voxels.")
    held = tuple(start for start in windows.starts if _holds(windows, start, zyx))
    if not held:
        raise PointOutsideVolume(f"{tuple(zyx)} lies in none of the windows; look inside the region that they cover.")
    return held


def _holds(windows: Windows, start: Start, zyx: tuple[float, float, float]) -> bool:
    placement = windows.placement(start)
    if windows.plane is not None and start[windows.plane] != round(zyx[windows.plane]):
        return False
    seen = [c for axis, c in enumerate(zyx) if axis != windows.plane]
    inside = zip(placement.to_input(seen), placement.input_shape, strict=True)
    return all(-0.5 <= c < n - 0.5 for c, n in inside)


def inspect_windows(
    windows: Windows,
    zyx: tuple[float, float, float],
    axis: int = 0,
    *,
    sites: Sequence[str] | None = None,
) -> VolumeInspection:
    """Run the windows that hold a voxel under the probe.

    axis: 0 axial, 1 coronal, 2 sagittal, the plane of flat pictures; a 2D model has its own. sites: names of the sites
    to keep, None for all. Raises PointOutsideVolume, UnknownSite, and UnsupportedModel where a model has no sites.
    """
    return run_to_end(inspect_windows_steps(windows, zyx, axis, sites=sites))


def inspect_windows_steps(
    windows: Windows,
    zyx: tuple[float, float, float],
    axis: int = 0,
    *,
    sites: Sequence[str] | None = None,
) -> Steps[VolumeInspection]:
    """The same window by window; can be stopped between two."""
    starts = starts_holding(windows, zyx)
    plane, image = _slice_of(windows, zyx, axis)
    share = MEMORY_BYTES // len(starts)
    probes, logits = [], torch.zeros(1 + len(windows.model.card.labels))
    for done, start in enumerate(starts):
        yield Progress(done, len(starts), f"window {done + 1} of {len(starts)}")
        # no probe is left open across a yield: it would watch whoever runs next in this thread
        probe, found = run_window(windows, start, sites, share)
        probes.append(probe)
        seen = [c for a, c in enumerate(zyx) if a != windows.plane]
        place = windows.placement(start).to_input(seen)
        inside = found
        for c, n in zip(place, found.shape[1:], strict=True):
            inside = inside[:, min(max(round(c), 0), n - 1)]
        logits += inside.cpu()
    number = int(logits.argmax())
    label = "background" if number == 0 else windows.model.card.labels[number - 1].name
    yield Result(VolumeInspection(windows, plane, WindowRuns(starts, tuple(probes)), image, label))


def _slice_of(windows: Windows, zyx: tuple[float, float, float], axis: int) -> tuple[SlicePlane, np.ndarray]:
    """The slice through a voxel, and its pixels in [0, 1] through the volume's window."""
    across = axis if windows.plane is None else windows.plane
    plane = SlicePlane(across, round(zyx[across]), windows.volume.shape)
    limits = (windows.volume.window.low, windows.volume.window.high)
    return plane, apply_window(plane.of(windows.volume.data), limits)


def run_window(
    windows: Windows, start: Start, sites: Sequence[str] | None = None, memory_bytes: int = MEMORY_BYTES
) -> tuple[AttentionProbe, Tensor]:
    """Run one window under a probe of its own. Returns the probe and the logits, (classes, *window)."""
    model = windows.model
    with AttentionProbe(model, sites, memory_bytes=memory_bytes) as probe, torch.inference_mode():
        for listener in model.on_encode:
            listener(windows.placement(start))
        logits = model.logits(windows.read(start).to(model.device))[0]
    return probe, logits
