"""The first look's stream of slices, and losses that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medtransformer.models.click_network import ClickConfig, ClickNetwork, ImageParts, PromptBatch
from napari_medtransformer.training.cases import CaseSource, LabelledCase, read_case
from napari_medtransformer.training.first_look import FirstLookRecipe, SliceStream, step_loss
from napari_medtransformer.training.loop import Schedule, learning_rate
from napari_medtransformer.training.losses import intersection_over_union, mask_losses
from napari_medtransformer.volumes.sample_data import sample_path

CONFIG = ClickConfig(input_size=64, stem_channels=(8, 16, 24), width=32, depth=1, heads=2, decoder_width=32)
SCHEDULE = Schedule(steps=6, warmup_steps=2, checkpoint_every=3)
RECIPE = FirstLookRecipe(SCHEDULE, images_per_step=2, targets_per_image=2, workers=0, seed=1)


@pytest.fixture(scope="module")
def ct() -> LabelledCase:
    names = ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")
    return read_case(sample_path(names[0]), sample_path(names[1]), CaseSource(*names, "CT", 1.0))


def test_the_stream_is_the_same_wherever_it_starts(ct: LabelledCase) -> None:
    whole, late = (SliceStream([ct], CONFIG, RECIPE, first) for first in (0, 5))
    for one, two in zip(whole[5], late[0], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert len(whole) == 12
    assert len(late) == 7


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_much() -> None:
    target = torch.zeros(1, 16, 16, dtype=torch.bool)
    target[:, 4:9, 4:9] = True
    right = torch.where(target, 20.0, -20.0)[:, None]
    losses = mask_losses(torch.cat([right, -right], dim=1), target)[0]
    assert losses[0] < 0.01
    assert losses[1] > 10
    iou = intersection_over_union(torch.cat([right, -right], dim=1), target)[0]
    np.testing.assert_allclose(iou, [1, 0])


def test_the_learning_rate_warms_up_and_comes_down() -> None:
    rates = [learning_rate(SCHEDULE, step) for step in range(SCHEDULE.steps + 1)]
    assert rates[0] == pytest.approx(SCHEDULE.learning_rate / 2)
    assert max(rates) == pytest.approx(SCHEDULE.learning_rate)
    assert rates[-1] == pytest.approx(SCHEDULE.learning_rate * SCHEDULE.final_learning_rate)


class PerfectNetwork(ClickNetwork):
    """Answers every prompt with the true mask of a disc, and remembers what it was asked."""

    def __init__(self, config: ClickConfig) -> None:
        super().__init__(config)
        self.asked: list[PromptBatch] = []

    def decode(
        self, features: tuple[torch.Tensor, ...], prompts: PromptBatch, seen: ImageParts | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(prompts)
        _, scores = super().decode(features, prompts, seen)
        y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        disc = (y - 12) ** 2 + (x - 20) ** 2 < 36
        return torch.where(disc, 9.0, -9.0).expand(len(scores), 3, 32, 32), scores


def test_a_batch_in_which_nothing_is_wrong_needs_no_correction() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (y // 2 - 12) ** 2 + (x // 2 - 20) ** 2 < 36
    recipe = FirstLookRecipe(corrected_share=1.0)
    network = PerfectNetwork(CONFIG)
    loss, facts = step_loss(network, disc[None, None].float(), disc[None, None], recipe, np.random.default_rng(0))
    assert np.isnan(facts["dice_corrected"])
    assert np.nanmax([facts["dice_box"], facts["dice_click"]]) == 1
    assert loss.requires_grad


def test_strokes_and_lassos_come_as_points_and_a_mask() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (y // 2 - 12) ** 2 + (x // 2 - 20) ** 2 < 36
    network = PerfectNetwork(CONFIG)
    images, targets = disc.expand(4, 1, 64, 64).float(), disc.expand(4, 10, 64, 64)
    _, facts = step_loss(network, images, targets, FirstLookRecipe(corrected_share=0.0), np.random.default_rng(0))
    asked = network.asked[-1]
    assert 2 < int(asked.has_mask.sum()) < 20
    assert not (asked.has_mask & asked.has_box).any()
    assert ((asked.point_labels == 1).any(dim=1) | asked.has_box).all()
    inside = torch.nn.functional.avg_pool2d(disc[None, None].float(), 2)[0, 0] > 0
    for said in asked.mask_logits[asked.has_mask]:
        assert ((said[0] > 0) & inside).any()
    assert not asked.mask_logits[~asked.has_mask].any()
    assert facts["dice_drawn"] == 1
