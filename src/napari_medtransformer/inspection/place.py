"""Heatmaps of a slice in the frame of its volume: for layers in millimetres, and on the volume's own voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.errors import InvalidOption, PointOutsideVolume
from napari_medtransformer.given import reals, whole, wholes
from napari_medtransformer.volumes.volume import Volume


@dataclass(frozen=True)
class SlicePlane:
    """One slice of a volume: every voxel whose coordinate along `axis` (0 z, 1 y, 2 x) is `index`.

    shape_zyx: the volume's. Raises PointOutsideVolume for a slice it does not have.
    """

    axis: int
    index: int
    shape_zyx: tuple[int, int, int]

    def __post_init__(self) -> None:
        shape = wholes(self.shape_zyx, "a volume's voxels along z, y and x", PointOutsideVolume)
        axis = whole(self.axis, "the axis across a slice", PointOutsideVolume)
        object.__setattr__(self, "axis", axis)
        object.__setattr__(self, "index", whole(self.index, "a slice's index", PointOutsideVolume))
        if len(shape) != 3 or axis not in (0, 1, 2) or not 0 <= self.index < self.shape_zyx[self.axis]:
            raise PointOutsideVolume(
                f"there is no slice {self.index} along axis {self.axis} in a volume of {self.shape_zyx} (z, y, x) "
                "voxels; count slices from 0, axes 0, 1 and 2."
            )

    @property
    def axes(self) -> tuple[int, int]:
        """The volume's axes that are the slice's rows and columns."""
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        return rows, columns

    @property
    def upside_down(self) -> bool:
        """Whether the first row belongs at the bottom: z runs down the rows of coronal and sagittal slices, towards the
        patient's head.
        """
        return self.axis != 0

    def of(self, volume_array: np.ndarray) -> np.ndarray:
        """The slice (rows, columns) of an array (z, y, x)."""
        return np.asarray(volume_array[(slice(None),) * self.axis + (self.index,)])

    def in_slice(self, zyx: tuple[float, float, float]) -> tuple[float, float]:
        """A volume coordinate as (row, column) of this slice. Raises PointOutsideVolume if it is on another."""
        z, y, x = reals(zyx, 3, "a volume's coordinates (z, y, x)", PointOutsideVolume)
        zyx = z, y, x
        if not self.index - 0.5 <= zyx[self.axis] < self.index + 0.5:
            raise PointOutsideVolume(
                f"{tuple(zyx)} lies on slice {zyx[self.axis]:g} along axis {self.axis}; this is slice {self.index}."
            )
        rows, columns = self.axes
        return float(zyx[rows]), float(zyx[columns])

    def in_volume(self, yx: tuple[float, float]) -> tuple[float, float, float]:
        """A (row, column) of this slice as a volume coordinate."""
        zyx = [float(self.index)] * 3
        for axis, value in zip(self.axes, yx, strict=True):
            zyx[axis] = float(value)
        return zyx[0], zyx[1], zyx[2]


@dataclass(frozen=True, eq=False)
class PlacedHeatmap:
    """A slice's heatmap in its volume's frame.

    values: (heads, z, y, x) float32 over the tokens, one token thick across the slice. scale_mm, translate_mm: per
    axis, what a viewer's layer of the volume's world needs: the size of a token and the place of the first one's
    centre, in millimetres.
    """

    heatmap: Heatmap
    plane: SlicePlane
    values: np.ndarray
    scale_mm: tuple[float, float, float]
    translate_mm: tuple[float, float, float]

    @property
    def site(self) -> str:
        """The attention site it is of."""
        return self.heatmap.site

    @property
    def heads(self) -> int:
        """How many heads."""
        return self.heatmap.heads

    def on_slice(self, *, smooth: bool = True) -> np.ndarray:
        """(heads, rows, columns) float32, at every voxel of the slice."""
        return self.heatmap.on_pixels(smooth=smooth)

    def on_volume(self, *, smooth: bool = True) -> np.ndarray:
        """(heads, z, y, x) float32 at every voxel of the volume, zero off the slice; fit for write_heatmap."""
        full = np.zeros((self.heads, *self.plane.shape_zyx), np.float32)
        full[(slice(None),) * (self.plane.axis + 1) + (self.plane.index,)] = self.on_slice(smooth=smooth)
        return full


def place_in_volume(heatmap: Heatmap, plane: SlicePlane, volume: Volume) -> PlacedHeatmap:
    """A slice's heatmap with its place in the volume's world of millimetres. Raises InvalidOption without a place."""
    if not heatmap.grid.has_place or heatmap.native_shape != plane.of(volume.data).shape:
        raise InvalidOption(f"{heatmap.site}: a heatmap over {heatmap.native_shape} pixels does not lie on {plane}.")
    scale, translate = [1.0] * 3, [float(plane.index)] * 3
    for axis, size, start in zip(plane.axes, heatmap.scale, heatmap.translate, strict=True):
        scale[axis], translate[axis] = size, start
    world = volume.placement
    sz, sy, sx = (size * mm for size, mm in zip(scale, world.scale, strict=True))
    tz, ty, tx = (t + start * mm for t, start, mm in zip(world.translate, translate, world.scale, strict=True))
    return PlacedHeatmap(heatmap, plane, np.expand_dims(heatmap.values, plane.axis + 1), (sz, sy, sx), (tz, ty, tx))
