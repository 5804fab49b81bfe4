"""napari readers: volumes and label files, upright and in millimetres."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import InvalidSession, UnsupportedVolume
from napari_medtransformer.plugin.layers import LayerData, image_layer, labels_layer, series_layer
from napari_medtransformer.volumes import Volume
from napari_medtransformer.volumes.guard import physical_memory
from napari_medtransformer.volumes.label_table import Label, label_color
from napari_medtransformer.volumes.lazy import lazy_of
from napari_medtransformer.volumes.reading import (
    DICOM_SUFFIXES,
    READABLE_SUFFIXES,
    has_suffix,
    read_frames,
    read_label_names,
    read_labels,
)

# More time points or channels than this become one layer with a slider.
_MOST_LAYERS = 12

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Sessions of the Prompt dock.
_SESSION_SUFFIXES = (".medt",)
# Files of a folder that are looked at for other slices of a series.
_LOOKED_AT = 10

# Words by which people name label files, and folders of label files (labelsTr of the Medical Decathlon).
_LABEL_WORD = re.compile(r"(?<![a-z])(seg|segs|gmseg|segmentation|label|labels|labeled|lbl|mask|masks)(?![a-z])")
_LABEL_FOLDERS = {"labels", "labelstr", "labelsts", "masks", "segmentations"}


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """The reader for one path or several, or None if any of them is not ours. Never raises.

    Looks at names; at the first bytes of files without a known suffix, and at the first files of folders and zips.
    """
    try:
        paths = _as_paths(path)
    except TypeError:
        return None
    return read_layers if paths and all(map(_is_ours, paths)) else None


def read_layers(path: Paths) -> list[LayerData]:
    """One layer per path: labels for a DICOM-SEG or a file named as labels (`*_seg`, `*-label`, `labelsTr/*`), else an
    image; one layer per time point or channel of a 4D file, or a single one with a slider if they are many. A saved
    session (.medt) goes to the Prompt dock and is no layer.

    `viewer.open(path, layer_type="labels")` overrides that, as napari's "convert to labels" does later. A file named
    as labels that holds fractional values is shown as the image it is. Of several DICOM series in a folder the user
    chooses one. Raises UnreadableFile, UnsupportedVolume or InvalidSession, which napari shows as a
    notification.
    """
    layers = [layer for one in _as_paths(path) for layer in _read_layers(one)]
    accompany()
    return layers


def accompany() -> None:
    """Letters and the place under the cursor from now on, where a viewer is open; without Qt, nothing."""
    if "qtpy" in sys.modules:
        from napari_medtransformer.plugin.volume.aids import accompany_open_viewers

        accompany_open_viewers()


def names_labels(path: Path) -> bool:
    """Whether a file's name or folder says that it holds labels."""
    return bool(_LABEL_WORD.search(path.name.lower())) or path.parent.name.lower() in _LABEL_FOLDERS


def _is_ours(path: Path) -> bool:
    """By name where the name tells, by content where it does not."""
    if path.name == "":
        return False
    if has_suffix(path, READABLE_SUFFIXES + _SESSION_SUFFIXES) and not has_suffix(path, (".zip",)):
        return True
    from napari_medtransformer.volumes.dicom import holds_dicom
    from napari_medtransformer.volumes.ome_zarr import is_ome_zarr

    return is_ome_zarr(path) or holds_dicom(path)


def _read_layers(path: Path) -> list[LayerData]:
    if has_suffix(path, _SESSION_SUFFIXES):
        return _open_session(path)
    if names_labels(path) or _is_dicom_seg(path):
        with suppress(UnsupportedVolume):  # fractional or negative values: an image after all, or read_frames says why
            labels = _paintable(read_labels(path))
            names = read_label_names(path)
            return [labels_layer(labels.data, labels, labels.name, **_named(names))]
    frames = read_frames(path, series=_chosen_series(path))
    if len(frames) > _MOST_LAYERS:
        return [series_layer(frames)]
    layers = [image_layer(frame) for frame in frames]
    if 1 in frames[0].shape and path.is_file() and _lies_among_slices(path):
        _remark(
            f"Single slices of the folder {path.parent.name} were opened. Drop the folder itself to get its volume."
        )
    if len(layers) > 1:
        for place, (_, kwargs, _) in enumerate(layers):
            kwargs["name"] += f" [frame {place}]"
            kwargs["visible"] = place == 0
    return layers


def _paintable(labels: Volume) -> Volume:
    """Labels in memory where they were in their file, which is let go; as they are if memory cannot hold them."""
    if lazy_of(labels.data) is None and labels.data.flags.writeable:
        return labels
    if labels.data.nbytes > physical_memory():
        _remark(f"{labels.name} is larger than the memory: it is shown from its file and cannot be painted on.")
        return labels
    return replace(labels, data=np.array(labels.data))


def _is_dicom_seg(path: Path) -> bool:
    if not path.is_file() or (has_suffix(path, READABLE_SUFFIXES) and not has_suffix(path, DICOM_SUFFIXES)):
        return False
    from napari_medtransformer.volumes.dicom_headers import is_dicom, is_segmentation, read_header
    from napari_medtransformer.volumes.guard import decoding

    if not is_dicom(path):
        return False
    with decoding(path):
        return is_segmentation(read_header(path))


def _lies_among_slices(path: Path) -> bool:
    """Whether a DICOM file has others beside it."""
    if has_suffix(path, READABLE_SUFFIXES) and not has_suffix(path, DICOM_SUFFIXES):
        return False
    from napari_medtransformer.volumes.dicom_headers import is_dicom

    others = (other for other in path.parent.iterdir() if other.name != path.name and other.is_file())
    return any(map(is_dicom, islice(others, _LOOKED_AT)))


def _remark(text: str) -> None:
    """A notification, once for a number of files that are opened together; nothing without a window."""
    if "qtpy" not in sys.modules:
        return
    from napari.utils.notifications import notification_manager, show_info

    if all(notification.message != text for notification in notification_manager.records[-1:]):
        show_info(text)


def _open_session(path: Path) -> list[Any]:
    """Go on with a saved session in the Prompt dock, which makes the layers. Raises InvalidSession if it cannot."""
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is not None:
        from napari_medtransformer.plugin.controller import known_controller

        controller = known_controller(viewer)
        if controller is not None and controller.session is not None:
            controller.files.open_session(path)
            return [(None,)]  # npe2's word for: read, and no layer
    raise InvalidSession(
        f"{path.name} is a saved session. Open the image it belongs to and the Prompt dock (Plugins → MedTransformer → "
        f"Prompt) first, then drop it again."
    )


def _chosen_series(path: Path) -> int | None:
    """Which series of a DICOM folder to open: asked in a dialog if there are several and there is a window.

    Without a window, or when the dialog is cancelled, None: reading then says which series there are.
    """
    from napari_medtransformer.volumes.dicom import list_series
    from napari_medtransformer.volumes.ome_zarr import is_ome_zarr

    if not path.is_dir() or is_ome_zarr(path):
        return None

    found = list_series(path)
    if len(found) < 2:
        return None
    from qtpy.QtWidgets import QApplication, QInputDialog  # only here: importing this module must not need Qt

    if QApplication.instance() is None:
        return None
    items = [f"{place}: {series}" for place, series in enumerate(found, 1)]
    item, accepted = QInputDialog.getItem(
        QApplication.activeWindow(), "Open DICOM", f"{path.name} holds {len(found)} series:", items, 0, False
    )
    return items.index(item) + 1 if accepted else None


def _named(labels: list[Label]) -> dict[str, Any]:
    """Features and colours of a labels layer by its labels' names; empty if they have none."""
    if not labels:
        return {}
    by_number = {label.number: label for label in sorted(labels, key=lambda label: label.number)}
    colors = {number: (*label.color, 1.0) for number, label in by_number.items()}
    # None is the colour of any other number: one that the user draws later must be seen.
    colors |= {0: (0.0, 0.0, 0.0, 0.0), None: (*label_color(max(by_number) + 1), 1.0)}
    # A row for each that has a name, not for each number: files may number their labels in the millions.
    named = {"index": [0, *by_number], "name": ["background", *(label.name for label in by_number.values())]}
    return {"features": named, "colormap": colors}


def _as_paths(path: Paths) -> list[Path]:
    return [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(one) for one in path]
