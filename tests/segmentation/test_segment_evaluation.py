"""Agreement of labels against MONAI's metrics and against shapes whose distances are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from napari_medtransformer.errors import UnsupportedVolume
from napari_medtransformer.segmentation.evaluation import agreement


def blob(shape, centre, radii) -> np.ndarray:
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii)) <= 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 1.2)])
def test_scores_are_monais(spacing) -> None:
    shape = (24, 30, 28)
    truth, found = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    truth[blob(shape, (12, 14, 13), (7, 9, 8))] = 1
    truth[blob(shape, (0, 26, 24), (5, 4, 4))] = 2  # cut off by the end of the volume
    found[blob(shape, (13, 15, 12), (7, 8, 9))] = 1
    found[blob(shape, (1, 25, 24), (5, 4, 5))] = 2
    one_hot = [torch.from_numpy(np.stack([a == i for i in range(3)])[None]).float() for a in (found, truth)]
    dice = compute_dice(*one_hot, include_background=False)[0]
    hd95 = compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing)[0]
    surface = compute_surface_dice(*one_hot, class_thresholds=[1.0, 1.0], spacing=spacing)[0]
    for i, score in enumerate(agreement(found, truth, spacing)):
        assert score.label.number == i + 1
        assert score.dice == pytest.approx(float(dice[i]), abs=1e-6)
        assert score.hd95_mm == pytest.approx(float(hd95[i]), abs=1e-5)
        assert score.surface_dice == pytest.approx(float(surface[i]), abs=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scores_of_one_slice_are_those_of_its_outline(axis) -> None:
    truth, found = (np.uint8(blob((64, 60), centre, (20, 15))) for centre in ((30, 28), (30, 33)))
    one_hot = [torch.from_numpy(np.stack([a == i for i in range(2)])[None]).float() for a in (found, truth)]
    spacing = (0.8, 1.2)
    (score,) = agreement(
        np.expand_dims(found, axis), np.expand_dims(truth, axis), [*spacing[:axis], 5.0, *spacing[axis:]]
    )
    hd95 = float(compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing))
    surface = float(compute_surface_dice(*one_hot, class_thresholds=[1.0], spacing=spacing))
    assert score.hd95_mm == pytest.approx(hd95, abs=1e-5)
    assert score.surface_dice == pytest.approx(surface, abs=1e-6)
    assert surface < 1


def test_one_voxel_agrees_with_itself() -> None:
    (score,) = agreement(np.ones((1, 1, 1), np.uint8), np.ones((1, 1, 1), np.uint8), (1, 1, 1))
    assert (score.dice, score.hd95_mm, score.surface_dice) == (1.0, 0.0, 1.0)


def test_a_shift_of_two_slices_is_their_thickness_in_millimetres() -> None:
    found, truth = np.zeros((2, 20, 20, 20), np.uint8)
    truth[5:10, 5:15, 5:15] = 3
    found[7:12, 5:15, 5:15] = 3
    (score,) = agreement(found, truth, (2.5, 1.0, 1.0))
    assert score.hd95_mm == 5.0
    assert score.dice == pytest.approx(0.6)


def test_equal_labels_agree_wholly_and_a_missing_one_not_at_all() -> None:
    truth = np.zeros((10, 10, 10), np.uint8)
    truth[2:5, 2:5, 2:5] = 1
    truth[7, 7, 7] = 2
    found = truth.copy()
    found[found == 2] = 0
    first, second = agreement(found, truth, (1, 1, 1), names={1: "liver", 2: "spleen"})
    assert (first.label.name, first.dice, first.hd95_mm, first.surface_dice) == ("liver", 1.0, 0.0, 1.0)
    assert (second.label.name, second.dice, second.hd95_mm, second.surface_dice) == ("spleen", 0.0, math.inf, 0.0)


def test_labels_on_another_grid_are_refused() -> None:
    with pytest.raises(UnsupportedVolume, match="resample"):
        agreement(np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3, 4), np.uint8), (1, 1, 1))
