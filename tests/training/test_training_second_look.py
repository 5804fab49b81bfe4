"""What the second look is shown in training: crops around what was prompted, drawn strokes and lassos among it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork
from napari_medtransformer.models.focus_network import FocusBatch, FocusNetwork
from napari_medtransformer.training.cases import CaseSource, LabelledCase, read_case
from napari_medtransformer.training.crop_stream import CropBatch, CropStream, SecondLookRecipe
from napari_medtransformer.training.loop import Schedule
from napari_medtransformer.training.second_look import second_loss
from napari_medtransformer.volumes.sample_data import sample_path

RECIPE = SecondLookRecipe(
    Schedule(steps=4), images_per_step=2, targets_per_image=12, slice_size=64, corrected_share=0.0, workers=0, seed=3
)


class ListeningNetwork(FocusNetwork):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__((8, 8, 8, 8))
        self.shown: list[FocusBatch] = []

    def forward(self, batch: FocusBatch) -> tuple[torch.Tensor, torch.Tensor]:
        self.shown.append(batch)
        return super().forward(batch)


@pytest.fixture(scope="module")
def ct() -> LabelledCase:
    names = ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")
    return read_case(sample_path(names[0]), sample_path(names[1]), CaseSource(*names, "CT", 1.0))


@pytest.fixture(scope="module")
def batch(ct: LabelledCase) -> CropBatch:
    stream = CropStream([ct], RECIPE, 0)
    return CropBatch(*(torch.stack(parts) for parts in zip(*(stream[i] for i in range(4)), strict=True)))


def test_the_stream_is_the_same_wherever_it_starts(batch: CropBatch, ct: LabelledCase) -> None:
    late = CropStream([ct], RECIPE, 3)[0]
    for whole, one in zip(batch, late, strict=True):
        torch.testing.assert_close(whole[3], one, rtol=0, atol=0)


@pytest.mark.parametrize("by_the_first_look", [False, True])
def test_every_crop_shows_its_prompts(batch: CropBatch, by_the_first_look: bool) -> None:
    network = ListeningNetwork()
    small = ClickConfig(input_size=64, stem_channels=(8, 16, 24), width=32, depth=1, heads=2, decoder_width=32)
    torch.manual_seed(0)
    first_look = ClickNetwork(small) if by_the_first_look else None
    loss, facts = second_loss(network, batch, RECIPE, np.random.default_rng(0), first_look)
    shown = network.shown[-1]
    assert torch.equal(shown.has_box, batch.has_box.flatten())
    assert torch.equal(shown.has_previous, batch.has_drawn.flatten())
    assert shown.has_previous.any()
    assert not (shown.has_previous & shown.has_box).any()
    clicked = shown.point_labels == 1
    assert torch.equal(clicked.any(dim=1), batch.has_point.flatten(0, 1).any(dim=1))
    assert (clicked[shown.has_previous].sum(dim=1) > 1).any()  # strokes of several points
    assert (shown.points_yx[clicked] > -0.5).all()
    assert (shown.points_yx[clicked] < 127.5).all()
    drawn = shown.previous[shown.has_previous].flatten(1)
    assert (drawn > 0).any(dim=1).all()
    assert loss.requires_grad
    assert 0 <= facts["dice_drawn"] <= 1


def test_a_loss_leaves_its_batch_as_it_was(batch: CropBatch) -> None:
    before = CropBatch(*(tensor.clone() for tensor in batch))
    recipe = replace(RECIPE, corrected_share=1.0, most_corrections=1)
    second_loss(FocusNetwork((8, 8, 8, 8)), batch, recipe, np.random.default_rng(0))
    for name, one, two in zip(CropBatch._fields, batch, before, strict=True):
        assert torch.equal(one, two), name
