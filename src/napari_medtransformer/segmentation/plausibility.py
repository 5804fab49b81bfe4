"""Whether a volume looks like what a model was trained on: doubts in words, before time is spent."""

from __future__ import annotations

from collections.abc import Iterable

from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.segmentation.options import Box
from napari_medtransformer.segmentation.region import extent_of, values_within
from napari_medtransformer.volumes.intensity import guess_modality, sample_values
from napari_medtransformer.volumes.volume import Volume

# Voxels this many times larger or smaller than the model's hold other detail than it learned from.
_SPACING_FACTOR = 2.5
# A volume narrower than this share of a window leaves the model without the surroundings that it counts on.
_LEAST_SHARE = 0.5


def doubts(volume: Volume, card: ModelCard, region: Box | None = None) -> list[str]:
    """What speaks against `card`'s model on this volume, one sentence each; empty if nothing does.

    Looked at: modality, intensities, the size of voxels and the field of view, against the card. region: what is asked
    for, (start, stop) in (z, y, x) voxels; intensities and field of view are then its own.
    """
    found = []
    values = sample_values(values_within(volume.data, region))
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    wanted = card.modalities
    if low == high:
        found.append(f"every voxel looked at has the value {low:g}: there is no image to segment.")
    elif wanted and volume.modality != "unknown" and volume.modality not in wanted:
        found.append(f"this is {volume.modality}, and {card.name} was trained on {' and '.join(wanted)}.")
    elif wanted == ("CT",) and guess_modality(values) != "CT":
        found.append(
            f"values run from {low:g} to {high:g} and are not distributed as Hounsfield units are; {card.name} expects "
            "CT in HU."
        )
    elif wanted and "CT" not in wanted and volume.modality == "unknown" and low < 0 and guess_modality(values) == "CT":
        found.append(f"values look like Hounsfield units, and {card.name} was trained on {' and '.join(wanted)}.")
    if card.input.spacing_mm is None or card.dimensions == 2:
        return found
    ratios = [own / learned for own, learned in zip(volume.spacing, card.input.spacing_mm)]
    if max(max(ratios), 1 / min(ratios)) > _SPACING_FACTOR:
        found.append(
            f"voxels of {_mm(volume.spacing)} mm are far from the {_mm(card.input.spacing_mm)} mm that {card.name} was "
            "trained on."
        )
    extents = [n * size for n, size in zip(extent_of(volume.shape, region), volume.spacing)]
    windows = [n * size for n, size in zip(card.input.size, card.input.spacing_mm)]
    if any(extent < _LEAST_SHARE * window for extent, window in zip(extents, windows)):
        found.append(
            f"the field of view, {_mm(extents)} mm, is much smaller than what {card.name} sees at once, "
            f"{_mm(windows)} mm."
        )
    largest = card.input.extent_mm
    if largest is not None and any(extent > 1.5 * most for extent, most in zip(extents, largest)):
        found.append(
            f"the field of view, {_mm(extents)} mm, is much larger than the {_mm(largest)} mm that {card.name} was "
            "trained on; choose a region around what you look for."
        )
    return found


def _mm(sizes: Iterable[float]) -> str:
    return " × ".join(f"{size:.3g}" for size in sizes)
