"""Strokes, outlines and the nearest prompt, on a slice of a few pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.measure import points_in_poly

from napari_medtransformer.prompting.drawing import in_volume, mask_outlines, nearest_prompt, on_slice, stroke_pixels
from napari_medtransformer.prompting.prompts import BoxPrompt, LassoPrompt, PointPrompt, ScribblePrompt


def test_a_stroke_covers_the_pixels_within_its_radius_of_the_path() -> None:
    path = np.array([[5.0, 3.0], [5.0, 20.0], [18.0, 20.0]])
    mask = stroke_pixels((30, 40), path, 2.0).unpack()
    rows, columns = np.mgrid[:30, :40]
    places = np.stack([rows, columns], axis=-1).astype(float)
    dense = np.concatenate([np.linspace(a, b, 500) for a, b in itertools.pairwise(path)])
    distance = np.min(np.linalg.norm(places[:, :, None] - dense, axis=-1), axis=-1)
    assert mask[distance < 1.98].all()
    assert not mask[distance > 2.02].any()


def test_a_thin_stroke_marks_the_pixels_under_the_hand() -> None:
    assert stroke_pixels((10, 10), [(3.4, 4.4)], 0.1).unpack()[3, 4]
    assert not stroke_pixels((10, 10), [(-5.0, 40.0)], 2.0).unpack().any()


def test_an_outline_goes_around_the_pixels_it_stands_for() -> None:
    mask = np.zeros((40, 50), bool)
    mask[10:25, 12:30] = True
    mask[20:35, 25:40] = True
    (line,) = mask_outlines(mask)
    rows, columns = np.mgrid[:40, :50]
    inside = points_in_poly(np.stack([rows.ravel(), columns.ravel()], axis=1), line).reshape(mask.shape)
    np.testing.assert_array_equal(inside, mask)
    assert mask_outlines(np.zeros((5, 5), bool)) == []


def test_the_nearest_prompt_is_the_one_that_was_meant() -> None:
    stroke = stroke_pixels((60, 60), [(50.0, 10.0), (50.0, 30.0)], 3.0)
    prompts = {
        1: PointPrompt((4.0, 10.0, 10.0)),
        2: BoxPrompt((4.0, 20.0, 20.0), (4.0, 40.0, 40.0)),
        3: LassoPrompt(((4.0, 5.0, 40.0), (4.0, 5.0, 55.0), (4.0, 15.0, 50.0))),
        4: ScribblePrompt(stroke, 4),
    }
    assert nearest_prompt(prompts, (11.0, 11.0), within=3) == 1
    assert nearest_prompt(prompts, (19.5, 30.0), within=3) == 2
    assert nearest_prompt(prompts, (30.0, 30.0), within=3) is None  # the middle of a box is not the box
    assert nearest_prompt(prompts, (5.0, 47.0), within=3) == 3
    assert nearest_prompt(prompts, (51.0, 20.0), within=0.5) == 4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_places_on_a_slice_and_in_the_volume_are_the_same(axis: int) -> None:
    line = np.array([[1.0, 2.0], [3.0, 5.0]])
    for (row, column), zyx in zip(line, in_volume(line, axis, 7)):
        assert zyx[axis] == 7
        assert on_slice(zyx, axis) == (row, column)
