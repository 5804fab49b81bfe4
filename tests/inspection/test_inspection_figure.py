"""Figures of heatmaps: where things are drawn, in millimetres, and whole files or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.inspection.figure import draw_heads, figure_path, scale_bar_mm, write_figure


@pytest.fixture
def figure():
    anatomy = np.linspace(0, 1, 20 * 30, dtype=np.float32).reshape(20, 30)
    heatmaps = np.zeros((3, 20, 30), np.float32)
    heatmaps[0, 4, 25] = heatmaps[1, 10, 10] = heatmaps[2, 19, 29] = 0.5
    return draw_heads(
        anatomy, heatmaps, spacing_mm=(5.0, 2.0), query=(4, 25), titles=["a", "b", "c"], caption="three heads of a test"
    )


def panels(figure):
    return [axis for axis in figure.axes if axis.images]


def test_every_head_gets_a_panel_with_the_anatomy_under_it(figure):
    assert [len(axis.images) for axis in panels(figure)] == [1, 2, 2, 2]
    assert [axis.get_title() for axis in panels(figure)] == ["anatomy and query", "a", "b", "c"]


def test_the_query_is_marked_at_the_centre_of_its_pixel_in_millimetres(figure):
    for axis in panels(figure):
        marks = [line for line in axis.lines if line.get_marker() == "+"]
        assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in marks} == {(25.5 * 2.0, 4.5 * 5.0)}


def test_the_picture_keeps_the_proportions_of_the_patient(figure):
    for axis in panels(figure):
        assert all(tuple(image.get_extent()) == (0, 60, 100, 0) for image in axis.images)
        assert axis.get_aspect() == 1.0


def test_where_a_head_does_not_look_the_anatomy_is_untouched(figure):
    overlay = panels(figure)[1].images[1]
    alpha = overlay.get_alpha()
    assert alpha[4, 25] == alpha.max() > 0.5
    assert np.count_nonzero(alpha) == 1


@pytest.mark.parametrize(("width_mm", "length_mm"), [(366, 50), (400, 100), (30, 5), (9, 2), (4, 1)])
def test_a_scale_bar_has_a_round_length_of_at_most_a_quarter(width_mm, length_mm):
    assert scale_bar_mm(width_mm) == length_mm


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_is_written_in_the_format_of_its_name(figure, tmp_path: Path, suffix: str):
    path = write_figure(figure, tmp_path / f"heads{suffix}")
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_png_shows_colour_over_the_grey_anatomy(figure, tmp_path: Path):
    pixels = np.asarray(Image.open(write_figure(figure, tmp_path / "heads.png", dots_per_inch=80)).convert("RGB"), int)
    assert (np.ptp(pixels, axis=-1) > 60).sum() > 100


@pytest.mark.parametrize("name", ["heads.jpeg", "heads", "missing/heads.png"])
def test_a_figure_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, name: str):
    with pytest.raises(CannotWrite):
        figure_path(tmp_path / name)


def test_heatmaps_that_do_not_fit_the_anatomy_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        draw_heads(np.zeros((4, 4)), np.zeros((1, 5, 4)), spacing_mm=(1, 1), query=(0, 0), titles=["a"], caption="")
