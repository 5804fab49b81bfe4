"""OME-Zarr: scale, units and channels as the format states them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import read_frames, read_volume

pytestmark = pytest.mark.filterwarnings("ignore:.*says nothing about the patient")
VALUES = np.random.default_rng(0).integers(0, 999, (4, 5, 6)).astype(np.uint16)


def write(
    path: Path, values: np.ndarray, axes: str, scale: list[float], unit: str = "micrometer", new: bool = False
) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=3 if new else 2)
    group.create_array("0", data=values, chunks=tuple(min(4, n) for n in values.shape))
    multiscales = [
        {
            "axes": [{"name": a, "type": "space", "unit": unit} if a in "zyx" else {"name": a} for a in axes],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": scale},
                        {"type": "translation", "translation": [10.0] * len(axes)},
                    ],
                }
            ],
        }
    ]
    group.attrs.update({"ome": {"multiscales": multiscales}} if new else {"multiscales": multiscales})
    return path


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(("unit", "factor"), [("micrometer", 1e-3), ("millimeter", 1), ("nanometer", 1e-6)])
def test_values_spacing_and_place_are_those_of_the_file(tmp_path: Path, new: bool, unit: str, factor: float) -> None:
    volume = read_volume(write(tmp_path / "image.zarr", VALUES, "zyx", [3.0, 2.0, 1.0], unit, new))
    assert np.array_equal(volume.data, VALUES)
    assert volume.spacing == pytest.approx((3 * factor, 2 * factor, factor))
    np.testing.assert_allclose(volume.placement.translate, [10 * factor] * 3, rtol=1e-9)


def described(path: Path) -> dict:
    return zarr.open_group(path, mode="r").attrs["multiscales"][0]


def test_what_is_stated_of_the_whole_image_comes_after_the_levels_own(tmp_path: Path) -> None:
    path = write(tmp_path / "image.zarr", VALUES, "zyx", [1.0] * 3, "millimeter")
    whole = [{"type": "scale", "scale": [2.5, 0.7, 0.7]}, {"type": "translation", "translation": [1.0, 0.0, 0.0]}]
    zarr.open_group(path).attrs.update({"multiscales": [described(path) | {"coordinateTransformations": whole}]})
    volume = read_volume(path)
    assert volume.spacing == pytest.approx((2.5, 0.7, 0.7))
    np.testing.assert_allclose(volume.placement.translate, [26, 7, 7], rtol=1e-9)


def test_units_are_known_or_said(tmp_path: Path) -> None:
    assert read_volume(write(tmp_path / "um.zarr", VALUES, "zyx", [2.0] * 3, "um")).spacing == pytest.approx([2e-3] * 3)
    with pytest.raises(UnsupportedVolume, match="“parsec”, which is no known unit"):
        read_volume(write(tmp_path / "far.zarr", VALUES, "zyx", [2.0] * 3, "parsec"))
    with pytest.warns(UserWarning, match="in micrometres \\(it states no unit of length\\)"):
        assert read_volume(write(tmp_path / "bare.zarr", VALUES, "zyx", [2.0] * 3, "")).spacing[0] == pytest.approx(
            2e-3
        )


def test_channels_are_frames_and_single_ones_vanish(tmp_path: Path) -> None:
    channels = np.stack([VALUES, VALUES + 1])[None]
    frames = read_frames(write(tmp_path / "image.zarr", channels, "tczyx", [1.0] * 5))
    assert len(frames) == 2
    assert np.array_equal(frames[1].data, VALUES + 1)
    flat = read_volume(write(tmp_path / "flat.zarr", VALUES[:1, None], "tcyx", [1.0] * 4))
    assert flat.shape == (1, 5, 6)


def test_what_is_no_single_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVolume, match="both time and channels"):
        read_volume(write(tmp_path / "both.zarr", np.zeros((2, 3, 4, 5, 6)), "tczyx", [1.0] * 5))
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    with pytest.raises(UnreadableFile, match="without an OME image"):
        read_volume(tmp_path / "empty.zarr")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    with pytest.raises(UnreadableFile):
        read_volume(tmp_path / "broken.zarr")
