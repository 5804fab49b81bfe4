"""The second look cuts, draws and pastes in the right place, whatever the image's shape and pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.focus_crops import Shown, crop, crop_window, crops, paste
from napari_medtransformer.models.focus_network import FOCUS_SIZE, FocusBatch, FocusNetwork, focus_maps
from napari_medtransformer.models.second_look import (
    expected_of_both,
    expected_overlap,
    heed_box,
    heed_clicks,
    second_look,
)

NO_POINTS = (np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
SHAPES = [(128, 128), (512, 512), (300, 200), (50, 75), (100, 257)]


class DrawingFocus(FocusNetwork):
    """Answers with one of the maps that it was shown."""

    channel = "box"

    def forward(self, batch: FocusBatch) -> tuple[Tensor, Tensor]:
        maps = focus_maps(batch)
        drawn = {"image": 0, "box": 3, "click": 5, "coarse": 11, "previous": 13}[self.channel]
        return maps[:, drawn : drawn + 1] - (0.5 if self.channel in ("box", "click") else 0), torch.ones(len(maps))


def look(
    channel: str,
    shape: tuple[int, int],
    prompts: Prompts,
    *,
    image: Tensor | None = None,
    guess: Tensor | None = None,
    pixel_size: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    network = DrawingFocus()
    network.channel = channel
    placement = InputPlacement.longest_side(shape, 256, pixel_size)
    picture = torch.zeros(1, 1, *shape) if image is None else image[None, None]
    guesses = torch.full((1, *shape), -8.0) if guess is None else guess[None]
    with torch.inference_mode():
        logits, _ = second_look(network, picture, placement, prompts, guesses)
    assert logits.shape == (1, *shape)
    return logits[0].numpy()


@pytest.mark.parametrize("pixel_size", [(1.0, 1.0), (5.0, 1.0), (0.3, 0.9)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_is_drawn_where_it_was_given(shape: tuple[int, int], pixel_size: tuple[float, float]) -> None:
    box = (shape[0] // 4, shape[1] // 5, shape[0] // 4 * 3, shape[1] // 2)
    inside = look("box", shape, Prompts(*NO_POINTS, box=box), pixel_size=pixel_size) > 0
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    # A crop pixel may be wider than a native one: half of it is what the edge can be off, and never a whole more.
    drawn = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    sides = [(box[2] - box[0]) * pixel_size[0], (box[3] - box[1]) * pixel_size[1]]
    coarse = [max(sides) * 1.7 / FOCUS_SIZE / pixel for pixel in pixel_size] * 2
    for edge, wanted, width in zip(drawn, box, coarse, strict=True):
        assert abs(edge - wanted) <= max(1, 0.5 + width / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_click_is_drawn_where_it_was_made(shape: tuple[int, int]) -> None:
    y, x = shape[0] * 2 // 3, shape[1] // 4
    guess = torch.full(shape, -8.0)
    guess[y - 8 : y + 9, x - 8 : x + 9] = 8
    prompts = Prompts(np.array([[y, x]], np.float32), np.array([1]))
    found = np.unravel_index(look("click", shape, prompts, guess=guess).argmax(), shape)
    assert np.abs(np.subtract(found, (y, x))).max() <= 1


@pytest.mark.parametrize("channel", ["coarse", "previous"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_guess_comes_back_in_its_place(shape: tuple[int, int], channel: str) -> None:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    disc = (rows - shape[0] * 0.4) ** 2 + (columns - shape[1] * 0.6) ** 2 < (min(shape) * 0.2) ** 2
    logits = np.where(disc, 8.0, -8.0).astype(np.float32)
    point = (np.array([[shape[0] * 0.4, shape[1] * 0.6]], np.float32), np.array([1]))
    prompts = Prompts(*point, mask_logits=logits if channel == "previous" else None)
    back = look(channel, shape, prompts, guess=torch.from_numpy(logits)) > 0
    assert 2 * (back & disc).sum() / (back.sum() + disc.sum()) > 0.95


def test_crop_and_paste_are_each_others_reverse() -> None:
    y, x = torch.meshgrid(torch.arange(90.0), torch.arange(70.0), indexing="ij")
    image = (torch.sin(y / 9) + torch.cos(x / 7))[None, None]
    window = crop_window(torch.tensor([30.0, 20.0]), torch.tensor([60.0, 45.0]))
    back = paste(crop(image, window[None])[0], window, (90, 70))[0]
    low = [int(np.ceil(edge)) + 1 for edge in window[:2].tolist()]
    high = [int(edge + side) - 1 for edge, side in zip(window[:2].tolist(), window[2:].tolist(), strict=True)]
    inside = np.s_[low[0] : high[0], low[1] : high[1]]
    torch.testing.assert_close(back[inside], image[0, 0][inside], atol=0.01, rtol=0)
    assert (back[0] == -8).all()


def test_a_crop_beyond_the_image_shows_nothing_there() -> None:
    seen = crop(torch.ones(1, 1, 40, 40), torch.tensor([[-20.0, 0.0, 40.0, 40.0]]))[0, 0]
    # Half a native pixel, 1.6 crop pixels, blends on either side of the border.
    torch.testing.assert_close(seen[:62], torch.zeros(62, FOCUS_SIZE))
    torch.testing.assert_close(seen[66:, 2:-2], torch.ones(62, FOCUS_SIZE - 4))


def test_what_is_much_larger_than_the_crop_is_averaged_not_skipped() -> None:
    stripes = (torch.arange(1024) % 2).float()[None, None, :, None].expand(1, 1, 1024, 1024)
    seen = crop(stripes, torch.tensor([[0.0, 0.0, 1024.0, 1024.0]]))
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5))


@pytest.mark.parametrize("outside", [0.0, -8.0])
def test_a_crop_shows_what_the_whole_image_holds_there(outside: float) -> None:
    image = torch.rand(1, 1, 300, 410, generator=torch.Generator().manual_seed(0))
    for y, x, side in [(-30.3, 200.7, 90.2), (120.5, 140.1, 41.0), (10.0, 20.0, 380.0), (250.0, 390.0, 60.0)]:
        seen = crop(image, torch.tensor([[y, x, side, side * 0.9]]), outside=outside)[0, 0]
        pools = max(1, int(side / FOCUS_SIZE)), max(1, int(side * 0.9 / FOCUS_SIZE))
        small = F.avg_pool2d(image, pools, ceil_mode=True, count_include_pad=False)[0, 0]
        steps = (np.arange(FOCUS_SIZE) + 0.5) / FOCUS_SIZE
        rows, columns = ((e + steps * s) / p - 0.5 for e, s, p in zip((y, x), (side, side * 0.9), pools, strict=True))
        expected = ndimage.map_coordinates(
            np.pad(small.numpy(), 2, constant_values=outside),
            np.clip(np.stack(np.meshgrid(rows, columns, indexing="ij")) + 2, 0, 1e4), order=1, cval=outside,
        )  # fmt: skip
        inside = (rows[:, None] < small.shape[0]) & (columns[None] < small.shape[1])
        np.testing.assert_allclose(seen.numpy()[inside], expected[inside], atol=2e-3)


def test_crops_through_one_window_are_those_made_one_by_one() -> None:
    draw = torch.Generator().manual_seed(0)
    image, logits = torch.rand(2, 1, 90, 140, generator=draw), 20 * torch.randn(2, 1, 90, 140, generator=draw)
    windows = torch.tensor([[-20.0, 30.5, 70.0, 70.0], [0.0, -10.0, 300.0, 310.0]])
    pictures, guesses = crops([Shown(image), Shown(logits, -8.0, 8.0)], windows)
    torch.testing.assert_close(pictures, crop(image, windows), atol=1e-5, rtol=0)
    torch.testing.assert_close(guesses, crop(logits.clamp(-8, 8), windows, outside=-8.0), atol=1e-5, rtol=0)


def test_an_empty_mask_prompt_looks_at_the_whole_image() -> None:
    empty = np.full((60, 80), -8, np.float32)
    ramp = torch.linspace(0.1, 0.9, 80).expand(60, 80)
    seen = look("image", (60, 80), Prompts(*NO_POINTS, mask_logits=empty), image=ramp)
    inner = np.s_[1:-1, 1:-1]  # the outermost pixels blend with nothing
    np.testing.assert_allclose(seen[inner], (ramp * 2 - 1)[inner], atol=0.02)


@pytest.mark.parametrize(("answer", "label"), [(-6.0, 1), (6.0, 0), (-0.1, 1)])
def test_a_click_that_was_not_heeded_wins_at_its_place_and_nowhere_far(answer: float, label: int) -> None:
    clicks = Prompts(np.array([[20.0, 30.0]], np.float32), np.array([label]))
    bent = heed_clicks(torch.full((64, 64), answer), torch.rand(64, 64), clicks, 2.0)
    assert bool(bent[20, 30] > 0) == bool(label)
    torch.testing.assert_close(bent[50:, :10], torch.full((14, 10), answer))


def test_a_bend_follows_what_looks_like_the_clicked_pixel() -> None:
    image = torch.zeros(64, 64)
    image[:, 32:] = 1.0  # an edge beside the click
    clicks = Prompts(np.array([[32.0, 30.0]], np.float32), np.array([1]))
    bent = heed_clicks(torch.full((64, 64), -2.0), image, clicks, 4.0) > 0
    assert bent[32, 28:32].all()
    assert not bent[:, 32:].any()


def test_heeded_clicks_change_no_bit() -> None:
    logits, clicks = torch.randn(64, 64), Prompts(np.array([[5.0, 6.0]], np.float32), np.array([1]))
    logits[5, 6] = 0.01
    assert torch.equal(heed_clicks(logits, torch.rand(64, 64), clicks, 3.0), logits)


BOX = (10.0, 20.0, 42.0, 52.0)


def touched(mask: torch.Tensor) -> list[bool]:
    """Whether a mask comes within a sixteenth of the upper, lower, left and right side of BOX."""
    inside = mask[10:42, 20:52]
    return [bool(rim.any()) for rim in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:])]


@pytest.mark.parametrize("level", [-9.0, -1.0, -0.01])
def test_a_box_is_never_answered_by_less_than_reaches_its_sides(level: float) -> None:
    down, across = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    faint = level - ((down - 25.5).square() + (across - 35.5).square()) / 100  # a disc that nothing is sure of
    heeded = heed_box(faint, Prompts(*NO_POINTS, box=BOX))
    mask = heeded > 0
    assert touched(mask) == [True] * 4
    assert not mask[:10].any()
    assert not mask[:, 52:].any()
    assert 0.5 < mask[10:42, 20:52].float().mean() < 0.95  # the disc, not the box
    order = torch.argsort(faint[10:42, 20:52].flatten(), stable=True)
    assert (heeded[10:42, 20:52].flatten()[order].diff() >= 0).all()


def test_a_mask_that_reaches_its_box_keeps_every_bit() -> None:
    logits = torch.full((64, 64), -3.0)
    logits[11:41, 21:51] = 2.0
    assert torch.equal(heed_box(logits, Prompts(*NO_POINTS, box=BOX)), logits)
    assert torch.equal(heed_box(-logits.abs(), Prompts(*NO_POINTS)), -logits.abs())


def test_a_click_outside_may_cut_off_a_side_of_the_box() -> None:
    logits = torch.full((64, 64), -3.0)
    outside = Prompts(np.array([[12.0, 30.0]]), np.array([0]), box=BOX)
    assert torch.equal(heed_box(logits, outside), logits)


@pytest.mark.parametrize("box", [(-8.0, -8.0, 6.4, 6.6), (60.2, 61.0, 70.0, 64.0), (5.0, 5.0, 5.3, 5.4)])
def test_a_box_at_the_edge_of_the_image_is_heeded_too(box: tuple[float, ...]) -> None:
    heeded = heed_box(torch.full((64, 64), -2.0), Prompts(*NO_POINTS, box=box))
    assert (heeded > 0).any()
    assert (heeded > 0).float().mean() < 0.05


def test_a_box_beside_the_image_changes_nothing() -> None:
    logits = torch.full((64, 64), -2.0)
    assert torch.equal(heed_box(logits, Prompts(*NO_POINTS, box=(-20.0, 3.0, -5.0, 9.0))), logits)


def test_the_expected_overlap_is_that_of_masks_drawn_from_the_probabilities() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    logits = (15 - torch.hypot(y - 32, x - 30)) / 3
    mask = logits > 0
    drawn = torch.rand(400, 64, 64, generator=torch.Generator().manual_seed(0)) < logits.sigmoid()
    overlaps = (drawn & mask).sum(dim=(1, 2)) / (drawn | mask).sum(dim=(1, 2))
    assert float(expected_overlap(logits)) == pytest.approx(float(overlaps.mean()), abs=0.01)


def test_an_empty_mask_expects_no_overlap_and_a_sure_one_all() -> None:
    assert float(expected_overlap(torch.full((8, 8), -9.0))) < 0.01
    assert float(expected_overlap(torch.full((8, 8), 30.0))) == pytest.approx(1.0)


def test_one_click_at_the_rim_of_a_mask_promises_less_than_one_in_its_middle() -> None:
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(300.0), indexing="ij")
    logits = 60 - torch.hypot(y - 90, x - 150)
    first, second = torch.tensor(0.9), torch.tensor(0.6)
    expected = {
        column: float(expected_of_both(first, second, logits, Prompts(np.array([[90.0, column]]), np.array([1]))))
        for column in (150.0, 120.0, 91.0, 20.0)
    }
    assert expected[150.0] == pytest.approx(0.7, abs=0.02)
    assert expected[120.0] == pytest.approx(0.7 * 0.75, abs=0.02)
    assert expected[91.0] == pytest.approx(0.35, abs=0.02)
    assert expected[20.0] == pytest.approx(0.35)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(*NO_POINTS, box=(20, 20, 60, 60)),
        Prompts(np.array([[1.0, 1.0]]), np.array([1]), box=(20, 20, 60, 60)),
        Prompts(np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([1, 0])),
        Prompts(np.array([[1.0, 1.0]]), np.array([0])),
    ],
)
def test_other_prompts_are_expected_what_the_three_estimates_say_on_average(prompts: Prompts) -> None:
    expected = expected_of_both(torch.tensor(0.9), torch.tensor(0.6), torch.ones(80, 80), prompts)
    assert float(expected) == pytest.approx((0.9 + 2 * 0.6) / 3)


def test_an_empty_mask_after_one_click_promises_half_of_what_was_said() -> None:
    click = Prompts(np.array([[1.0, 1.0]]), np.array([1]))
    assert float(expected_of_both(torch.tensor(0.4), torch.tensor(0.4), -torch.ones(9, 9), click)) == pytest.approx(0.2)
