"""napari readers: volumes and label files, upright and in millimetres."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.plugin.layers import LayerData, image_layer, labels_layer
from napari_medtransformer.volumes.reading import READABLE_SUFFIXES, has_suffix, read_labels, read_volume

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Words by which people name label files, and folders of label files (labelsTr of the Medical Decathlon).
_LABEL_WORD = re.compile(r"(?<![a-z])(seg|segs|gmseg|segmentation|label|labels|labeled|lbl|mask|masks)(?![a-z])")
_LABEL_FOLDERS = {"labels", "labelstr", "labelsts", "masks", "segmentations"}


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """The reader for one path or several, or None if any of them is not ours. Looks at names only and never raises."""
    try:
        paths = _as_paths(path)
    except TypeError:
        return None
    if not paths or not all(has_suffix(one, READABLE_SUFFIXES) for one in paths):
        return None
    return read_layers


def read_layers(path: Paths) -> list[LayerData]:
    """One layer per path: labels for a file that is named as one (`*_seg`, `*-label`, `labelsTr/*`), else an image.

    `viewer.open(path, layer_type="labels")` overrides that, as napari's "convert to labels" does later. A file named
    as labels that holds fractional values is shown as the image it is.
    Raises UnreadableFile or UnsupportedVolume, which napari shows as a notification.
    """
    return [_read_layer(one) for one in _as_paths(path)]


def names_labels(path: Path) -> bool:
    """Whether a file's name or folder says that it holds labels."""
    return bool(_LABEL_WORD.search(path.name.lower())) or path.parent.name.lower() in _LABEL_FOLDERS


def _read_layer(path: Path) -> LayerData:
    if names_labels(path):
        with suppress(UnsupportedVolume):  # fractional or negative values: an image after all, or read_volume says why
            labels = read_labels(path)
            return labels_layer(labels.data, labels, labels.name)
    return image_layer(read_volume(path))


def _as_paths(path: Paths) -> list[Path]:
    return [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(one) for one in path]
