"""Windows that slide over a volume, and several calls of one site: every one is kept and lands where it belongs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_blocks import native_slices
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from napari_medtransformer.attention.heatmap import stitch_heatmaps
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import NothingCaptured, QueryOutOfGrid
from napari_medtransformer.models.base import Prompts

NATIVE, RESIZED, WINDOW, PATCH = (20, 24, 15), (10, 24, 30), (8, 16, 16), 4
TOKENS = tuple(n // PATCH for n in WINDOW)


class Local(nn.Module):
    """Two heads over 4³ patches whose tokens attend to themselves and, a little, to their neighbours."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        places = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float32) for n in TOKENS])
        batch = windows.shape[0]
        # -|a - b|² = 2ab - |a|² - |b|², and a row's constant changes nothing
        q = torch.cat([2 * places, torch.ones(len(places), 1)], dim=1)
        k = torch.cat([places, -places.square().sum(dim=1, keepdim=True)], dim=1)
        q, k = (t.expand(batch, 2, -1, -1) for t in (q, k))
        return scaled_dot_product_attention(q * torch.tensor([1.0, 0.5]).view(1, 2, 1, 1), k, k, scale=1.0)


class LocalModel:
    """A model of windows, as far as the probe asks."""

    def __init__(self) -> None:
        self.network = Local()
        self.on_encode: list = []

    def attention_sites(self) -> list[SiteSpec]:
        layout = TokenLayout((PATCH,) * 3)
        return [SiteSpec("encoder.0", "", "global", 2, layout, layout)]

    def run(self, origins: list[tuple[int, int, int]]) -> None:
        """One batch of windows of the volume."""
        whole = InputPlacement(NATIVE, RESIZED, RESIZED)
        for origin in origins:
            for listener in self.on_encode:
                listener(whole.window(origin, WINDOW))
        self.network(torch.zeros(len(origins), 1, *WINDOW))


ORIGINS = list(itertools.product((0, 2), (0, 8), (-1, 7, 14)))


@pytest.fixture
def probe():
    model = LocalModel()
    with AttentionProbe(model) as probe:
        for first in range(0, len(ORIGINS), 5):
            model.run(ORIGINS[first : first + 5])
    return probe


@st.composite
def windows(draw):
    """A window somewhere over an image that was resized."""
    native = tuple(draw(st.integers(1, 20)) for _ in range(3))
    resized = tuple(draw(st.integers(1, 20)) for _ in range(3))
    patch = tuple(draw(st.integers(1, 5)) for _ in range(3))
    shape = tuple(p * draw(st.integers(1, 4)) for p in patch)
    origin = tuple(draw(st.integers(1 - s, r - 1)) for s, r in zip(shape, resized))
    return TokenGrid(TokenLayout(patch), InputPlacement(native, resized, resized).window(origin, shape))


@given(windows())
@settings(deadline=None)
def test_a_voxel_has_a_token_exactly_where_the_window_covers_its_centre(grid):
    placement = grid.placement
    covered = np.ones(placement.native_shape, bool)
    for axis, (n, r, o, s) in enumerate(
        zip(placement.native_shape, placement.resized_shape, placement.origin, placement.input_shape)
    ):
        centre = (np.arange(n) + 0.5) * r / n
        inside = (centre >= o) & (centre < o + s)
        covered &= inside.reshape([-1 if a == axis else 1 for a in range(3)])
    count = np.zeros(placement.native_shape, int)
    for token in range(grid.n_tokens):
        block = native_slices(grid, token)
        count[block] += 1
        for voxel in itertools.islice(itertools.product(*[range(s.start, s.stop) for s in block]), 2):
            assert grid.token_of(voxel) == token
    assert np.array_equal(count, covered.astype(int))
    assert grid.pixels_per_token(np.ones(placement.native_shape, bool)).sum() == covered.sum()
    for voxel in np.argwhere(~covered)[:3]:
        assert not grid.holds(voxel)
        with pytest.raises(QueryOutOfGrid, match="window"):
            grid.token_of(voxel)


@given(windows(), st.tuples(*[st.floats(-30, 30)] * 3))
@settings(deadline=None)
def test_the_way_into_a_window_and_back_is_the_identity(grid, there):
    placement = grid.placement
    assert placement.to_native(placement.to_input(there)) == pytest.approx(there, abs=1e-9)
    whole = InputPlacement(placement.native_shape, placement.resized_shape, placement.resized_shape)
    expected = [w - o for w, o in zip(whole.to_input(there), placement.origin)]
    assert placement.to_input(there) == pytest.approx(expected, abs=1e-9)


def test_a_window_beside_the_image_is_refused():
    with pytest.raises(ValueError, match="beside the image"):
        InputPlacement(NATIVE, RESIZED, RESIZED).window((10, 0, 0), WINDOW)


@pytest.mark.parametrize("voxel", [(10, 12, 7), (3, 2, 1), (19, 23, 14), (12, 14, 9)])
def test_a_heatmap_of_a_voxel_is_centred_on_it_in_the_volume(probe, voxel):
    heatmap = probe.heatmap("encoder.0", voxel)
    assert heatmap.values.sum(axis=(1, 2, 3)) == pytest.approx(1, abs=1e-5)
    # the centre of mass of a row cut off at the window's edge moves inwards by less than a token
    token = np.array(heatmap.scale)
    for head in heatmap.values:
        centres = np.meshgrid(
            *[t + s * np.arange(n) for t, s, n in zip(heatmap.translate, token, head.shape)], indexing="ij"
        )
        mass = np.array([(head * c).sum() for c in centres])
        assert np.all(np.abs(mass - voxel) < token), (mass, voxel)
    drawn = heatmap.on_pixels(smooth=False)
    assert drawn.shape == (2, *NATIVE)
    brightest = np.argwhere(drawn[0] == drawn[0].max())
    assert np.all(np.abs(brightest - voxel).min(axis=0) < token)


def test_a_stitched_heatmap_is_the_mean_of_the_windows_that_hold_the_voxel(probe):
    voxel = (12, 14, 9)
    single = []
    for number, origin in enumerate(ORIGINS):
        call, image = divmod(number, 5)
        grid = probe.captured("encoder.0", image, call).site.query_grid
        assert grid.placement.origin == origin
        if grid.holds(voxel):
            single.append(probe.heatmap("encoder.0", voxel, call=call, image=image))
    assert 1 < len(single) < len(ORIGINS)
    stitched = probe.heatmap("encoder.0", voxel)
    # by another route: every token's value spread over its pixels at the model's scale
    fine = np.zeros((2, 40, 60, 60))
    for heatmap in single:
        at = [slice(o + 10, o + 10 + s) for o, s in zip(heatmap.grid.placement.origin, WINDOW)]
        spread = heatmap.values
        for axis in (1, 2, 3):
            spread = spread.repeat(PATCH, axis) / PATCH
        fine[(slice(None), *at)] += spread / len(single)
    start = [o + 10 for o in stitched.grid.placement.origin]
    cut = fine[(slice(None), *[slice(o, o + PATCH * n) for o, n in zip(start, stitched.values.shape[1:])])]
    cells = cut.reshape(2, *itertools.chain.from_iterable((n, PATCH) for n in stitched.values.shape[1:]))
    assert np.allclose(stitched.values, cells.sum(axis=(2, 4, 6)), atol=1e-6)


def test_what_tokens_receive_is_a_mean_where_windows_overlap(probe):
    single = [probe.received("encoder.0", call=c, image=i) for c, i in (divmod(n, 5) for n in range(len(ORIGINS)))]
    same = stitch_heatmaps([single[0], single[0], single[0]], overlap="mean")
    assert np.allclose(same.values, single[0].values)
    stitched = probe.received("encoder.0")
    highest, lowest = max(h.values.max() for h in single), min(h.values.min() for h in single)
    inside = stitched.values[:, 1:-1, 1:-1, 1:-1]
    assert lowest - 1e-6 <= inside.min() <= inside.max() <= highest + 1e-6


def test_regions_and_rollout_reach_across_windows(probe):
    region = np.zeros(NATIVE, bool)
    region[2:18, 3:20, 2:12] = True
    heatmap = probe.mean_row("encoder.0", region)
    assert heatmap.values.sum(axis=(1, 2, 3)) == pytest.approx(1, abs=1e-5)
    drawn = heatmap.on_pixels(smooth=False)[0]
    assert drawn[region].mean() > 2 * drawn[~region].mean()
    rolled = probe.rollout((12, 14, 9))
    assert rolled.values.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(QueryOutOfGrid, match="lies outside"):
        probe.heatmap("encoder.0", (50, 0, 0))


def test_windows_of_different_images_are_not_stitched(probe):
    heatmap = probe.received("encoder.0", call=0)
    other = probe.received("encoder.0", call=0, image=1)
    stranger = type(other)(
        other.site,
        None,
        TokenGrid(TokenLayout((PATCH,) * 3), InputPlacement((9, 9, 9), RESIZED, WINDOW, (0, 0, 0))),
        other.values,
        other.prefix_mass,
        other.padding_mass,
    )
    with pytest.raises(ValueError, match="differ in image"):
        stitch_heatmaps([heatmap, stranger])
    with pytest.raises(ValueError, match="at least one"):
        stitch_heatmaps([])


def test_every_call_of_a_site_is_kept_and_can_be_asked(small_sam):
    image = np.random.default_rng(0).random((50, 77), dtype=np.float32)
    clicks = [Prompts(np.array([place], np.float32), np.array([1])) for place in ((20.0, 30.0), (40.0, 60.0))]
    site = "decoder.0.prompt-to-image"
    alone = []
    for click in clicks:
        with AttentionProbe(small_sam) as probe:
            small_sam.decode(small_sam.encode(image), click)
        alone.append(probe.heatmap(site, 6).values)
    with AttentionProbe(small_sam) as probe:
        embedding = small_sam.encode(image)
        for click in clicks:
            small_sam.decode(embedding, click)
    assert probe.calls(site) == 2
    assert probe.calls("encoder.0") == 1
    for number, expected in enumerate(alone):
        assert np.allclose(probe.heatmap(site, 6, call=number).values, expected, atol=1e-6)
    assert np.array_equal(probe.heatmap(site, 6).values, probe.heatmap(site, 6, call=1).values)
    assert not np.allclose(alone[0], alone[1], atol=1e-4)
    with pytest.raises(NothingCaptured, match="called 2 times; there is no call 2"):
        probe.heatmap(site, 6, call=2)
    with pytest.raises(NothingCaptured, match="no image 1"):
        probe.captured(site, image=1)


def test_the_last_call_alone_is_kept_on_demand(small_sam):
    with AttentionProbe(small_sam, keep="last") as probe:
        for seed in range(3):
            small_sam.encode(np.random.default_rng(seed).random((50, 77), dtype=np.float32))
    assert probe.calls("encoder.1") == 1
