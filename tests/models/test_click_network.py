"""The bundled network: its shapes, and what prompts may and may not change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_medtransformer.models.click_layers import Conv2d, GroupNorm, convolutions_in
from napari_medtransformer.models.click_network import (
    ClickConfig,
    ClickNetwork,
    PromptBatch,
    _prompts_share,
    click_similarity,
    prompt_maps,
)
from napari_medtransformer.models.focus_network import UnshuffledConv2d, drawn_clicks

CONFIG = ClickConfig(input_size=64, stem_channels=(8, 16, 24), width=32, depth=2, heads=2, decoder_width=32)


@pytest.fixture(scope="module")
def network() -> ClickNetwork:
    torch.manual_seed(3)
    return ClickNetwork(CONFIG).eval()


def one_click(y: float, x: float, label: int = 1) -> PromptBatch:
    return PromptBatch(
        torch.tensor([[[y, x]]]),
        torch.tensor([[label]]),
        torch.zeros(1, 4),
        torch.tensor([False]),
        torch.zeros(1, 1, 32, 32),
        torch.tensor([False]),
        torch.tensor([0]),
    )


@torch.inference_mode()
def test_every_object_gets_three_masks_at_half_size_and_scores_between_0_and_1(network: ClickNetwork) -> None:
    logits, scores = network(torch.rand(1, 1, 64, 64), one_click(20, 30))
    assert logits.shape == (1, 3, 32, 32)
    assert scores.shape == (1, 3)
    assert ((scores > 0) & (scores < 1)).all()


@torch.inference_mode()
def test_an_empty_place_for_a_point_changes_nothing(network: ClickNetwork) -> None:
    image = torch.rand(1, 1, 64, 64)
    prompts = one_click(20, 30)
    padded = replace(
        prompts,
        points_yx=torch.cat([prompts.points_yx, torch.tensor([[[50.0, 3.0]]])], dim=1),
        point_labels=torch.tensor([[1, -1]]),
    )
    expected, actual = network(image, prompts), network(image, padded)
    torch.testing.assert_close(actual[0], expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(actual[1], expected[1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_objects_of_one_batch_do_not_see_each_other(network: ClickNetwork) -> None:
    images = torch.rand(2, 1, 64, 64)
    first, second = one_click(20, 30), one_click(50, 9, 0)
    together = PromptBatch(*(torch.cat([getattr(first, k), getattr(second, k)]) for k in first.__dataclass_fields__))
    together = replace(together, image_index=torch.tensor([0, 1]))
    logits, _ = network(images, together)
    alone, _ = network(images[1:], second)
    torch.testing.assert_close(logits[1:], alone, atol=1e-4, rtol=1e-4)


def test_prompts_are_drawn_where_they_are() -> None:
    prompts = replace(one_click(20, 41), boxes=torch.tensor([[8.0, 16.0, 24.0, 48.0]]), has_box=torch.tensor([True]))
    box, inside, outside, mask, has_mask = prompt_maps(prompts, 64)[0]
    assert box.sum().item() == pytest.approx(16 * 32 / 4)  # half the size: a quarter of the area
    rows, columns = torch.nonzero(box > 0.5, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 11, 8, 23)
    assert divmod(int(inside.argmax()), 32) == (10, 20)
    assert not outside.any()
    assert not mask.any()
    assert not has_mask.any()


def test_the_clicked_pixel_is_the_most_similar_one() -> None:
    torch.manual_seed(0)
    embedding = torch.randn(1, 16, 16, 16)
    similar = click_similarity(torch.nn.functional.normalize(embedding, dim=1), one_click(4 * 5 + 1.5, 4 * 9 + 1.5), 4)
    assert divmod(int(similar[0, 0].argmax()), 16) == (5, 9)
    assert similar[0, 0].max().item() == pytest.approx(1, abs=1e-5)
    assert not similar[0, 1].any()


@torch.inference_mode()
def test_the_images_share_and_the_prompts_add_up_to_the_layers_over_both(network: ClickNetwork) -> None:
    decoder, (x2, *rest) = network.decoder, network.encode(torch.rand(1, 1, 64, 64))
    maps = prompt_maps(one_click(20, 30), 64)
    whole = decoder.skip2(torch.cat([x2, maps], dim=1))
    added = network.image_parts((x2, *rest)).half + _prompts_share(decoder.skip2, maps)
    torch.testing.assert_close(added, whole, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_objects_on_one_image_get_the_same_masks_whether_it_is_repeated_or_not(network: ClickNetwork) -> None:
    image = torch.rand(1, 1, 64, 64)
    first, second = one_click(20, 30), one_click(50, 9, 0)
    both = PromptBatch(*(torch.cat([getattr(first, k), getattr(second, k)]) for k in first.__dataclass_fields__))
    once, _ = network(image, both)
    twice, _ = network(image.repeat(2, 1, 1, 1), replace(both, image_index=torch.tensor([0, 1])))
    torch.testing.assert_close(once, twice, atol=1e-4, rtol=1e-4)


def test_clicks_are_drawn_as_gaussians_of_their_distance() -> None:
    points, labels = torch.rand(2, 3, 2) * 40, torch.tensor([[1, 0, 1], [1, -1, 1]])
    axis = torch.arange(32.0) * 2 + 0.5
    inside, outside = drawn_clicks(points, labels, axis, (3.0, 12.0))
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    for maps, sign in ((inside, 1), (outside, 0)):
        for drawn, radius in zip(maps, (3.0, 12.0), strict=True):
            away = (y - points[..., :1, None]).square() + (x - points[..., 1:, None]).square()
            blobs = torch.exp(-away / (2 * radius**2)) * (labels == sign)[..., None, None]
            torch.testing.assert_close(drawn, blobs.amax(dim=1))


def test_convolutions_round_their_factors_and_nothing_else() -> None:
    layer, x = Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 12, 12)
    with convolutions_in(torch.bfloat16):
        rounded = layer(x)
    weight, bias = (p.detach().bfloat16().float() for p in (layer.weight, layer.bias))
    exact = torch.nn.functional.conv2d(x.bfloat16().float(), weight, bias, padding=1)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=2**-8, atol=1e-3)  # half a unit in the last of eight bits
    assert not torch.equal(rounded, layer(x))
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1))


def test_a_rounded_kernel_is_kept_until_the_parameters_change() -> None:
    layer, x = Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 12, 12)

    def differs() -> bool:
        with torch.inference_mode(), convolutions_in(torch.bfloat16):
            weight, bias = layer.weight.bfloat16(), layer.bias.bfloat16()
            anew = torch.nn.functional.conv2d(x.bfloat16(), weight, bias, padding=1).float()
            return not torch.equal(layer(x), anew)

    assert not differs()
    kept = layer._kept
    assert not differs()
    assert layer._kept is kept
    with torch.no_grad():
        layer.weight.mul_(3)
    assert not differs()
    layer.load_state_dict(Conv2d(8, 8, 3, padding=1).state_dict())
    assert not differs()


@torch.inference_mode()
def test_layers_made_for_inference_answer_too() -> None:
    layer, x = Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 12, 12)
    with convolutions_in(torch.bfloat16):
        before = layer(x)
        layer.weight.mul_(2)
        assert not torch.equal(layer(x), before)
        share = layer.over(x[:, 5:], slice(5, 8))
    exact = torch.nn.functional.conv2d(x[:, 5:], layer.weight[:, 5:], layer.bias, padding=1)
    torch.testing.assert_close(share, exact, rtol=2**-6, atol=0.03)  # bfloat16 has eight bits


def test_a_rounded_kernel_that_was_kept_stays_out_of_graphs() -> None:
    layer, x = Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 6, 6)
    with convolutions_in(torch.bfloat16):
        with torch.inference_mode():
            layer(x)
        layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_that_unshuffles_is_one_of_what_torch_unshuffled(batch: int) -> None:
    layer, x = UnshuffledConv2d(4 * 5, 6, 3, padding=1), torch.randn(batch, 5, 16, 16)
    unshuffled = torch.nn.functional.pixel_unshuffle(x, 2)
    expected = torch.nn.functional.conv2d(unshuffled, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_of_a_group_norm_are_those_of_torch(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = GroupNorm(24)
    torch.nn.init.normal_(norm.weight, generator=generator)
    x, weights = (torch.randn(3, 24, 20, 20, generator=generator) for _ in range(2))
    exact = x.clone().requires_grad_()
    (torch.nn.functional.group_norm(exact, 8, norm.weight, norm.bias) * weights).sum().backward()
    expected = [exact.grad, *(p.grad.clone() for p in norm.parameters() if p.grad is not None)]
    norm.zero_grad()
    given = x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    answer = norm(given)
    assert answer.dtype == dtype
    assert answer.is_contiguous(memory_format=torch.channels_last)
    (answer * weights).sum().backward()
    for found, wanted in zip([given.grad, norm.weight.grad, norm.bias.grad], expected, strict=True):
        assert found is not None
        assert wanted is not None
        error = (found.float() - wanted).norm() / wanted.norm()
        assert error < (0.01 if dtype == torch.bfloat16 else 1e-5)
    with torch.no_grad():
        assert torch.equal(norm(given), torch.nn.functional.group_norm(given, 8, norm.weight, norm.bias))
