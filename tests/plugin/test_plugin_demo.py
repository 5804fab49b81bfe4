"""The demo as a user starts it: it ends by itself, and its pictures show a painted liver and a heatmap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

from napari_medtransformer.plugin.demo import organ_centre
from napari_medtransformer.plugin.widgets.style import object_colour
from napari_medtransformer.volumes.reading import read_labels
from napari_medtransformer.volumes.sample_data import sample_path

PICTURES = ["01-open.png", "02-liver-click.png", "03-attention.png", "04-coronal.png"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The demo's screenshots by name, (rows, columns, 3) uint8."""
    folder = tmp_path_factory.mktemp("demo") / "shots"
    program = "import sys; from napari_medtransformer.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "demo", "--headless", "--screenshots", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.split()] == PICTURES
    return {path.name: imread(path)[..., :3] for path in sorted(folder.iterdir())}


def blue_pixels(picture: np.ndarray) -> int:
    """Pixels of the first object's hue, which neither anatomy nor napari's dark theme has."""
    red, green, blue = (int(object_colour(1)[i : i + 2], 16) for i in (1, 3, 5))
    assert blue > green > red
    r, g, b = picture.astype(int).transpose(2, 0, 1)
    return int(((b - r > 60) & (g - r > 25) & (b > 120) & (g > 90)).sum())


def test_the_demo_leaves_a_picture_of_every_step(pictures) -> None:
    assert list(pictures) == PICTURES
    for picture in pictures.values():
        assert picture.shape[0] >= 700
        assert picture.shape[1] >= 1200


def test_one_click_paints_a_large_part_of_the_canvas(pictures) -> None:
    before, after = (blue_pixels(pictures[name]) for name in PICTURES[:2])
    assert after - before > 20_000


def test_the_heatmap_shows_on_the_slice(pictures) -> None:
    # Inferno's oranges: much red, little blue, and on neither the CT nor the docks.
    def oranges(picture: np.ndarray) -> int:
        r, g, b = picture.astype(int).transpose(2, 0, 1)
        return int(((r > 150) & (r - b > 90) & (r - g > 40)).sum())

    assert oranges(pictures["03-attention.png"]) > oranges(pictures["01-open.png"]) + 500


def test_the_organs_centre_lies_in_the_organ_on_its_largest_slice() -> None:
    labels = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data
    z, y, x = organ_centre("liver")
    assert labels[z, y, x] == 5  # liver in the sample's table
    areas = (labels == 5).sum(axis=(1, 2))
    assert areas[z] == areas.max()
