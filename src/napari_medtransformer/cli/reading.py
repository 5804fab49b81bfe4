"""The image that a command works on, and its faults in the words of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_medtransformer.errors import UnsupportedVolume

if TYPE_CHECKING:
    from napari_medtransformer.volumes import Volume

# What a caller of read_volume would write, and what somebody at the command line does.
_AS_OPTIONS = (
    ("read it with resample=True to interpolate", "`medtransformer convert IN -o OUT --interpolate` fills the gaps"),
    ("with series=NUMBER of", "with --series NUMBER of"),
    ("with frame=0 to", "with --frame 0 to"),
    ("Leave frame out", "Leave --frame out"),
    ("Leave series out", "Leave --series out"),
)


def read_input(path: Path, series: str | None = None, frame: int | None = None, *, interpolate: bool = False) -> Volume:
    """The volume of `path`. series: a number of the list or a UID. Raises what read_volume raises."""
    from napari_medtransformer.volumes import read_volume

    try:
        return read_volume(path, series=series, frame=frame, resample=interpolate)
    except UnsupportedVolume as error:
        text = str(error)
        for said, option in _AS_OPTIONS:
            text = text.replace(said, option)
        raise UnsupportedVolume(text) from error


def read_label_input(path: Path, frame: int | None = None, option: str = "`medtransformer convert --frame`,") -> Volume:
    """The labels of `path`. option: by what a frame is chosen. Raises what read_labels raises."""
    from napari_medtransformer.volumes import read_labels

    try:
        return read_labels(path, frame=frame)
    except UnsupportedVolume as error:
        text = str(error).replace("with frame=0 to", f"with {option} 0 to")
        raise UnsupportedVolume(text.replace("Leave frame out", f"Leave {option} out")) from error


def check_grid(labels: Volume, image: Volume, labels_path: Path) -> None:
    """Raises UnsupportedVolume unless labels lie on an image's voxels."""
    import numpy as np

    # A hundredth of a voxel: what headers lose in writing an affine as float32 is far below.
    tolerance = 0.01 * min(image.spacing)
    if labels.shape == image.shape:
        corners = np.array([(0, 0, 0), labels.shape, (0, labels.shape[1], 0)])
        if np.abs(labels.mm_from_zyx(corners) - image.mm_from_zyx(corners)).max() < tolerance:
            return
    own, other = (" × ".join(map(str, one.shape)) for one in (labels, image))
    raise UnsupportedVolume(
        f"{labels_path.name} lies on another grid ({own} voxels) than {image.grid.path.name} ({other}); bring it "
        f"there first with `medtransformer convert --labels --like`."
    )
