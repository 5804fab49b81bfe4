"""Looking inside a model on one slice of a volume: encode it once under the probe, then ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.probe import AttentionProbe, SiteSummary
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import PointOutsideVolume
from napari_medtransformer.inspection.place import PlacedHeatmap, SlicePlane, place_in_volume
from napari_medtransformer.inspection.shares import LabelShares, shares_by_label
from napari_medtransformer.models.base import MaskPrediction, PromptableModel, Prompts
from napari_medtransformer.volumes.intensity import apply_window
from napari_medtransformer.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class SliceInspection:
    """A slice that went through a model under the probe; every answer comes from what the probe kept.

    prediction: what the model answered to the prompts it was given, None without prompts.
    Coordinates are the volume's, (z, y, x); a coordinate on another slice raises PointOutsideVolume.
    """

    volume: Volume
    plane: SlicePlane
    probe: AttentionProbe
    prediction: MaskPrediction | None

    @property
    def sites(self) -> list[AttentionSite]:
        """The sites that ran, encoder first."""
        return self.probe.sites

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(row, column) spacing of the slice."""
        rows, columns = self.plane.axes
        return self.volume.spacing[rows], self.volume.spacing[columns]

    def heatmap(self, site: str | AttentionSite, query_zyx: tuple[float, float, float]) -> PlacedHeatmap:
        """What every head of a site attends to from a voxel."""
        return self._placed(self.probe.heatmap(site, self.plane.in_slice(query_zyx)))

    def token_heatmap(self, site: str | AttentionSite, token: int) -> PlacedHeatmap:
        """What every head of a site attends to from a query token, such as a prompt token of the decoder."""
        return self._placed(self.probe.heatmap(site, token))

    def mean_heatmap(self, site: str | AttentionSite, mask: np.ndarray) -> PlacedHeatmap:
        """What a region attends to. mask: bool, (z, y, x) of the volume or (rows, columns) of the slice."""
        return self._placed(self.probe.mean_row(site, self.on_slice(mask)))

    def received(self, site: str | AttentionSite) -> PlacedHeatmap:
        """What every token receives from the whole slice."""
        return self._placed(self.probe.received(site))

    def rollout(self, query_zyx: tuple[float, float, float]) -> PlacedHeatmap:
        """Where the encoder's output at a voxel comes from, through all layers."""
        return self._placed(self.probe.rollout(self.plane.in_slice(query_zyx)))

    def shares(self, heatmap: PlacedHeatmap, labels: np.ndarray) -> LabelShares:
        """How a heatmap's attention is shared out among labels. labels: (z, y, x) or (rows, columns) integers."""
        return shares_by_label(heatmap.heatmap, self.on_slice(labels))

    def summary(self) -> list[SiteSummary]:
        """Entropy (nats) and mean attention distance (mm) of every site and head."""
        return self.probe.summary(self.spacing_mm)

    def on_slice(self, array: np.ndarray) -> np.ndarray:
        """An array of the volume or of the slice, as one of the slice. Raises PointOutsideVolume for another shape."""
        array = np.asarray(array)
        if array.shape == self.volume.shape:
            return self.plane.of(array)
        if array.shape == self.plane.of(self.volume.data).shape:
            return array
        raise PointOutsideVolume(
            f"an array of shape {array.shape}; expected the volume's {self.volume.shape} or the slice's "
            f"{self.plane.of(self.volume.data).shape}."
        )

    def _placed(self, heatmap: Heatmap) -> PlacedHeatmap:
        return place_in_volume(heatmap, self.plane, self.volume)


def inspect_slice(
    model: PromptableModel,
    volume: Volume,
    axis: int,
    index: int,
    *,
    window: tuple[float, float] | None = None,
    prompts: Prompts | None = None,
    sites: Sequence[str] | None = None,
) -> SliceInspection:
    """Encode a slice of a volume under the probe and, with prompts, decode it too; takes as long as a prediction.

    window: (low, high) of the intensities the model sees, None for the volume's own. prompts: in pixels of the slice.
    sites: names of the sites to keep, None for all. Raises PointOutsideVolume for a slice the volume does not have,
    UnknownSite, and NothingCaptured if only decoder sites were asked for without prompts.
    """
    plane = SlicePlane(axis, index, volume.shape)
    limits = (volume.window.low, volume.window.high) if window is None else window
    image = apply_window(plane.of(volume.data), limits)
    rows, columns = plane.axes
    with AttentionProbe(model, sites) as probe:
        embedding = model.encode(image, (volume.spacing[rows], volume.spacing[columns]))
        prediction = None if prompts is None else model.decode(embedding, prompts)
    return SliceInspection(volume, plane, probe, prediction)
