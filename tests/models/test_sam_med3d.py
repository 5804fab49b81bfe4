"""SAM-Med3D: its attention as published, its crop in the volume, and where its heatmaps lie."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from local_attention import assert_heatmaps_peak_at, feed, first_head, place_code
from small_models import SMALL_SAM_MED3D, small_sam_med3d
from torch import nn

from napari_medtransformer.attention.bias import KeyTermsBias
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.errors import InvalidPrompt, UnreadableWeights
from napari_medtransformer.models import find_card
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.sam_med3d import SamMed3DModel, crop_of, inside_of, normalised
from napari_medtransformer.models.sam_med3d_network import BlockAttention, SamMed3D, SamMed3DConfig, turned
from napari_medtransformer.models.volume_model import VolumePrompts, centre_of
from napari_medtransformer.models.weights import fill, guess_family

CPU = torch.device("cpu")
SPACING = (3.0, 2.0, 1.5)
VOLUME = np.random.default_rng(0).normal(100, 40, size=(30, 50, 60)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return small_sam_med3d()


def clicks(*points, labels=None):
    return VolumePrompts(np.array(points, np.float32), np.array(labels or [1] * len(points)))


def published_attention(x, attention, scale):
    """Self-attention over (x, y, z) written out as the authors' code broadcasts it, with every score in memory.

    x: (1, n, n, n, width). Its three relative terms are laid beside scores (d, h, w, kd, kh, kw) in their own places.
    """
    n, heads = x.shape[1], attention.heads
    q, k, v = attention.qkv(x).reshape(n**3, 3, heads, -1).permute(1, 2, 0, 3).unbind(0)
    offsets = torch.arange(n)[:, None] - torch.arange(n)[None] + n - 1
    cube = q.reshape(heads, n, n, n, -1)
    rel_d = torch.einsum("hdijc,dkc->hdijk", cube, attention.rel_pos_d[offsets])
    rel_h = torch.einsum("hdijc,ikc->hdijk", cube, attention.rel_pos_h[offsets])
    rel_w = torch.einsum("hdijc,jkc->hdijk", cube, attention.rel_pos_w[offsets])
    scores = (scale * q @ k.transpose(1, 2)).reshape(heads, *(n,) * 6)
    scores = scores + rel_d[:, :, :, :, None, None] + rel_h[:, :, :, None, :, None] + rel_w[:, :, :, None, None, :]
    rows = scores.reshape(heads, n**3, n**3).softmax(dim=-1)
    out = (rows @ v).permute(1, 0, 2).reshape(1, n, n, n, -1)
    return attention.proj(out), rows


def test_attention_over_zyx_equals_the_published_one_over_xyz():
    torch.manual_seed(0)
    attention = BlockAttention(24, 3, 4)
    for table in (attention.rel_pos_d, attention.rel_pos_h, attention.rel_pos_w):
        nn.init.normal_(table)
    tokens = torch.randn(1, 4, 4, 4, 24)
    with torch.no_grad():
        expected, _ = published_attention(tokens.permute(0, 3, 2, 1, 4), attention, 8**-0.5)
        found = attention(tokens)
    assert torch.allclose(found.permute(0, 3, 2, 1, 4), expected, atol=1e-5)


def test_a_bias_of_key_terms_equals_its_sum_written_out():
    torch.manual_seed(0)
    grid, heads, n = (2, 3, 4), 2, 24
    along_z, over_xz = torch.randn(1, heads, n, 2), torch.randn(1, heads, 6, 2, 4)
    bias = KeyTermsBias(grid, ((along_z, (0,)), (over_xz, (0, 2))))
    dense = along_z[..., :, None, None] + over_xz[:, :, torch.arange(n) % 6][..., :, None, :]
    dense = dense.expand(1, heads, n, *grid).reshape(1, heads, n, n)
    q, k, v = torch.randn(3, 1, heads, n, 8).unbind(0)
    expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense)
    assert torch.allclose(bias.rows(q[0, :, 3:9], 0, torch.arange(3, 9)), dense[0, :, 3:9], atol=1e-6)
    assert torch.allclose(attend(q, k, v, bias=bias), expected, atol=1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        KeyTermsBias(grid, ((along_z, (1,)),))


def test_a_published_checkpoint_is_turned_and_turned_back():
    state = draw_weights(SamMed3D(SMALL_SAM_MED3D), 1).state_dict()
    other = turned(state)
    assert other["image_encoder.patch_embed.proj.weight"].shape == (48, 1, 16, 16, 16)
    assert not torch.equal(other["image_encoder.pos_embed"], state["image_encoder.pos_embed"])
    assert all(torch.equal(value, state[name]) for name, value in turned(other).items())
    assert guess_family(state) == "SAM-Med3D"


def test_the_published_size_has_the_tensors_of_the_published_file():
    with torch.device("meta"):
        state = SamMed3D(SamMed3DConfig()).state_dict()
    # sam_med3d_turbo.pth: 402 MB of float32
    assert len(state) == 324
    assert sum(value.numel() for value in state.values()) == 100_509_616
    assert state["image_encoder.blocks.0.attn.rel_pos_d"].shape == (27, 64)
    assert state["image_encoder.blocks.2.attn.rel_pos_d"].shape == (15, 64)
    assert state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].shape == (3, 128)


def test_a_missing_tensor_is_named():
    state = dict(draw_weights(SamMed3D(SMALL_SAM_MED3D), 1).state_dict())
    del state["mask_decoder.iou_token.weight"]
    with pytest.raises(UnreadableWeights, match=r"1 missing \(mask_decoder.iou_token.weight\)"):
        fill(SamMed3D(SMALL_SAM_MED3D), turned(state))


def test_the_crop_lies_around_the_click_at_the_voxel_size_of_training(model):
    placement = model.placement(VOLUME.shape, SPACING, (15, 20, 40))
    assert placement.resized_shape == (60, 67, 60)
    assert placement.input_shape == (64, 64, 64)
    # a voxel's centre falls on an edge of the finer grid: within one voxel of the middle
    assert np.allclose(placement.to_input((15, 20, 40)), 32, atol=1.0)


def test_a_crop_is_linear_between_voxels_and_zero_beyond(model):
    ramp = np.broadcast_to(np.arange(30, dtype=np.float32)[:, None, None], VOLUME.shape)
    placement = model.placement(ramp.shape, SPACING, (15, 25, 30))
    crop, inside = crop_of(ramp, placement), inside_of(placement)
    middle = [round(c) for c in placement.to_input((15, 25, 30))]
    for z in (middle[0] - 9, middle[0], middle[0] + 8):
        expected = placement.to_native([z, middle[1], middle[2]])[0]
        assert crop[z, middle[1], middle[2]] == pytest.approx(expected, abs=1e-4)
    assert inside.sum() == math.prod((60, 64, 60))  # the whole volume along z and x, 64 of 67 voxels along y
    assert (crop[~inside] == 0).all()


def test_a_crop_of_a_lazy_volume_reads_only_its_part(model):
    class Watched(np.ndarray):
        taken: ClassVar[list] = []

        def __getitem__(self, key):
            Watched.taken.append(key)
            return np.asarray(super().__getitem__(key))

    tall = np.zeros((4000, 8, 8), np.float32).view(Watched)
    crop_of(tall, model.placement(tall.shape, SPACING, (2000, 4, 4)))
    (taken,) = Watched.taken
    assert taken[0].stop - taken[0].start < 40


def test_intensities_are_normalised_over_what_lies_above_zero():
    crop = torch.tensor([[[-2000.0, 0.0, 100.0, 300.0, 5000.0]]])
    inside = torch.ones_like(crop, dtype=torch.bool)
    as_ct = normalised(crop, inside, "CT")
    counted = torch.tensor([100.0, 300.0, 1000.0])
    assert torch.allclose(as_ct[0, 0, 2], (100 - counted.mean()) / counted.std())
    assert torch.isfinite(normalised(torch.full((2, 2, 2), -5.0), torch.ones(2, 2, 2, dtype=torch.bool), "MR")).all()


def test_an_object_comes_back_on_the_volumes_own_voxels(model):
    embedding = model.encode(VOLUME, SPACING, (15, 25, 30), "MR")
    mask = model.decode(embedding, clicks((15, 25, 30), (12, 20, 33), labels=[1, 0]))
    assert VOLUME[mask.slices].shape == mask.logits.shape == (30, 48, 60)
    fine = nn.functional.interpolate(mask.coarse, size=(64, 64, 64), mode="trilinear")[0, 0]
    z, y, x = (round(c) for c in embedding.placement.to_input((15, 25, 30)))
    near = fine[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]
    at = tuple(c - start for c, start in zip((15, 25, 30), mask.start_zyx, strict=True))
    assert near.min() <= mask.logits[at] <= near.max()


def test_an_earlier_answer_is_refined_from_its_own_logits_or_from_its_mask(model):
    embedding = model.encode(VOLUME, SPACING, (15, 25, 30), "MR")
    first = model.decode(embedding, clicks((15, 25, 30)))
    more = VolumePrompts(np.array([[15, 25, 30], [12, 20, 33]], np.float32), np.array([1, 0]), previous=first)
    seen = []
    hook = model.network.prompt_encoder.mask_downscaling.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.decode(embedding, more)
    elsewhere = model.encode(VOLUME, SPACING, (14, 25, 30), "MR")
    model.decode(elsewhere, more)
    hook.remove()
    assert torch.equal(seen[0], first.coarse)
    assert seen[1].shape == (1, 1, 16, 16, 16)
    assert torch.isfinite(seen[1]).all()


def test_clicks_beyond_the_crop_are_refused_when_none_is_inside(model):
    embedding = model.encode(VOLUME, SPACING, (15, 25, 30), "MR")
    far = clicks((15, 25, 300))
    with pytest.raises(InvalidPrompt, match="none of the 1 clicks"):
        model.decode(embedding, far)


def test_a_crop_is_centred_on_the_clicks_inside_the_object():
    points, labels = np.array([[1, 2, 3], [5, 6, 7], [90, 90, 90]]), np.array([1, 1, 0])
    assert centre_of(points, labels) == (3, 4, 5)
    assert centre_of(points[2:], labels[2:]) == (90, 90, 90)


def test_sites_have_the_grids_that_ran_and_heatmaps_lie_where_attention_is():
    model = SamMed3DModel(find_card("sam-med3d"), draw_weights(SamMed3D(SMALL_SAM_MED3D), 0), CPU, torch.float32)
    for block in model.network.image_encoder.blocks:
        block.norm1 = nn.Identity()
        first_head(block.attn.qkv, 12, parts=3)
        for table in (block.attn.rel_pos_d, block.attn.rel_pos_h, block.attn.rel_pos_w):
            table.zero_()
        feed(block, lambda tokens: place_code(tokens.shape[1:4], 12, 48)[None])
    centre = (15, 25, 30)
    with AttentionProbe(model) as probe:
        model.decode(model.encode(VOLUME, SPACING, centre, "MR"), clicks(centre))
    assert [site.name for site in probe.sites] == [spec.name for spec in model.attention_sites()]
    assert [site.kind for site in probe.sites[:3]] == ["window", "global", "window"]
    assert all(site.key_grid.shape == (4, 4, 4) for site in probe.sites[:3])
    assert len(model.prompt_tokens(clicks(centre))) == probe.site("decoder.0.prompts").query_grid.n_tokens
    for query in (centre, (9, 40, 12)):
        assert_heatmaps_peak_at(probe, query)


def test_probed_rows_equal_the_published_softmax():
    torch.manual_seed(0)
    model = SamMed3DModel(find_card("sam-med3d"), draw_weights(SamMed3D(SMALL_SAM_MED3D), 0), CPU, torch.float32)
    attention = model.network.image_encoder.blocks[1].attn
    seen = []
    hook = attention.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with AttentionProbe(model) as probe:
        model.encode(VOLUME, SPACING, (15, 25, 30), "MR")
    hook.remove()
    with torch.no_grad():
        _, rows = published_attention(seen[0].permute(0, 3, 2, 1, 4), attention, 12**-0.5)
    expected = rows.reshape(4, *(4,) * 6).permute(0, 3, 2, 1, 6, 5, 4).reshape(4, 64, 64)
    assert torch.allclose(probe.rows("encoder.1", list(range(64))), expected, atol=1e-5)
