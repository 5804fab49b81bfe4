"""Looking inside a model on one slice of a volume: encode it once under the probe, then ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from napari_medtransformer.attention.asking import name_of
from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.probe import AttentionProbe, SiteSummary
from napari_medtransformer.attention.sites import AttentionSite
from napari_medtransformer.errors import InvalidPrompt, NothingCaptured, PointOutsideVolume, UnsupportedModel, in_words
from napari_medtransformer.given import reals, record
from napari_medtransformer.inspection.place import PlacedHeatmap, SlicePlane, place_in_volume
from napari_medtransformer.inspection.shares import LabelShares, shares_by_label
from napari_medtransformer.models.base import ImageEmbedding, MaskPrediction, PromptableModel, Prompts, PromptToken
from napari_medtransformer.volumes.intensity import apply_window
from napari_medtransformer.volumes.numbers import numbers
from napari_medtransformer.volumes.volume import Volume, check_volume


@dataclass(frozen=True, eq=False)
class SliceInspection:
    """A slice that went through a model under the probe; every answer comes from what the probe kept.

    prediction: what the model answered to the prompts it was given, None without prompts. model, window, image,
    embedding: what was encoded, the intensities (low, high) it saw, and the slice in [0, 1]. decoded: the probe of
    prompts that were decoded later, in place of those that `probe` saw.
    Coordinates are the volume's, (z, y, x); a coordinate on another slice raises PointOutsideVolume.
    """

    volume: Volume
    plane: SlicePlane
    probe: AttentionProbe
    prediction: MaskPrediction | None
    model: PromptableModel
    window: tuple[float, float]
    image: np.ndarray
    embedding: ImageEmbedding
    prompts: Prompts | None = None
    decoded: AttentionProbe | None = None

    @cached_property
    def _captured(self) -> dict[str, CapturedSite]:
        """Every site that ran; made once, since a grid's tables take longer than a row."""
        later = {} if self.decoded is None else {s.name: self.decoded.captured(s) for s in self.decoded.sites}
        return {s.name: self.probe.captured(s) for s in self.probe.sites if s.name not in later} | later

    @cached_property
    def small_images(self) -> dict[int, np.ndarray]:
        """The slice at smaller sizes, kept by whoever draws it again and again: longer side → (rows, columns)."""
        return {}

    @property
    def sites(self) -> list[AttentionSite]:
        """The sites that ran, encoder first."""
        return [captured.site for captured in self._captured.values()]

    @property
    def tokens(self) -> tuple[PromptToken, ...]:
        """The decoder's tokens, in its order; empty without prompts and where the model cannot name them."""
        return () if self.prompts is None else self.model.prompt_tokens(self.prompts)

    def probe_of(self, site: str | AttentionSite) -> AttentionProbe:
        """The probe that saw a site: that of the last prompts, if they reached it, else the encoder's."""
        name = name_of(site)
        later = self.decoded
        return later if later is not None and name in {known.name for known in later.sites} else self.probe

    def site(self, name: str) -> AttentionSite:
        """The site of that name. Raises UnknownSite, or NothingCaptured if it did not run."""
        return self.captured(name).site

    def captured(self, site: str | AttentionSite) -> CapturedSite:
        """A site with the queries and keys it had. Raises UnknownSite, or NothingCaptured if it did not run."""
        name = name_of(site)
        # the probe says what is wrong with a name
        return self._captured[name] if name in self._captured else self.probe.captured(name)

    def with_prompts(self, prompts: Prompts) -> SliceInspection:
        """The same slice with these prompts decoded, under a probe of their own; it is not encoded again."""
        check_prompts(prompts)
        decoded: AttentionProbe | None
        try:
            with AttentionProbe(self.model) as decoded:
                prediction = self.model.decode(self.embedding, prompts)
        except NothingCaptured:
            decoded = None  # a decoder without attention
        return replace(self, prediction=prediction, prompts=prompts, decoded=decoded)

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(row, column) spacing of the slice."""
        rows, columns = self.plane.axes
        return self.volume.spacing[rows], self.volume.spacing[columns]

    def heatmap(self, site: str | AttentionSite, query_zyx: tuple[float, float, float]) -> PlacedHeatmap:
        """What every head of a site attends to from a voxel."""
        return self._placed(self.probe_of(site).heatmap(site, self.plane.in_slice(query_zyx)))

    def received(self, site: str | AttentionSite) -> PlacedHeatmap:
        """What every token receives from the whole slice."""
        return self._placed(self.probe_of(site).received(site))

    def rollout(self, query_zyx: tuple[float, float, float]) -> PlacedHeatmap:
        """Where the encoder's output at a voxel comes from, through all layers."""
        return self._placed(self.probe.rollout(self.plane.in_slice(query_zyx)))

    def shares(self, heatmap: PlacedHeatmap, labels: np.ndarray) -> LabelShares:
        """How a heatmap's attention is shared out among labels. labels: (z, y, x) or (rows, columns) integers."""
        record(heatmap, PlacedHeatmap, "a PlacedHeatmap of this inspection")
        return shares_by_label(heatmap.heatmap, self.on_slice(labels))

    def summary(self) -> list[SiteSummary]:
        """Entropy (nats) and mean attention distance (mm) of every site and head."""
        return self.probe.summary(self.spacing_mm)

    def on_slice(self, array: np.ndarray) -> np.ndarray:
        """An array of the volume or of the slice, as one of the slice. Raises PointOutsideVolume for another shape."""
        array = numbers(array, "an array on the slice or the volume", PointOutsideVolume)
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


def check_prompts(prompts: Prompts) -> Prompts:
    """`prompts`, if a model can be given them. Raises InvalidPrompt."""
    return record(prompts, Prompts, "Prompts in pixels of the slice", InvalidPrompt)


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
    UnknownSite, NothingCaptured if only decoder sites were asked for without prompts, UnsupportedModel,
    UnsupportedVolume, InvalidPrompt and InvalidOption for what is of another type.
    """
    if not isinstance(model, PromptableModel):
        raise UnsupportedModel(f"{in_words(model)} is no model that answers clicks on slices; load one.")
    check_volume(volume)
    if prompts is not None:
        check_prompts(prompts)
    plane = SlicePlane(axis, index, volume.shape)
    given = (volume.window.low, volume.window.high) if window is None else window
    low, high = reals(given, 2, "a window's low and high")
    limits = low, high
    image = apply_window(plane.of(volume.data), limits)
    rows, columns = plane.axes
    with AttentionProbe(model, sites) as probe:
        embedding = model.encode(image, (volume.spacing[rows], volume.spacing[columns]))
        prediction = None if prompts is None else model.decode(embedding, prompts)
    return SliceInspection(volume, plane, probe, prediction, model, limits, image, embedding, prompts)
