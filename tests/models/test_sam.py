"""The SAM adapter against transformers' own eager network and against Meta's published names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from local_attention import assert_heatmaps_peak_at, feed, first_head, place_code
from published_names import meta_names
from small_models import sam_config
from transformers import SamConfig, SamModel

from napari_medtransformer.attention.policy import AttentionPolicy, use_policy
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.relative import relative_table
from napari_medtransformer.errors import UnreadableWeights, UnsupportedModel
from napari_medtransformer.models import ModelCard, find_card
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.sam import SamAdapter, build, random_sam
from napari_medtransformer.models.sam_blocks import FusedSamLayer
from napari_medtransformer.models.sam_names import transformers_names

IMAGE = np.random.default_rng(0).random((50, 77), dtype=np.float32)
MASK = np.random.default_rng(1).normal(size=(50, 77)).astype(np.float32)
NO_POINTS = (np.zeros((0, 2), np.float32), np.zeros(0, np.int64))


@pytest.fixture(scope="module")
def pair():
    """Our adapter and transformers' eager network with the same weights."""
    ours = SamAdapter(find_card("sam-vit-b"), random_sam(sam_config(), 0), torch.device("cpu"), torch.float32)
    config = sam_config()
    config._attn_implementation = "eager"
    theirs = SamModel(config).eval()
    theirs.load_state_dict(ours.network.state_dict())
    assert not isinstance(theirs.vision_encoder.layers[0], FusedSamLayer)
    return ours, theirs


def their_input():
    """The image as SAM's own preprocessing makes it: longest side 128, normalised, padded by zeros."""
    grey = F.interpolate(torch.from_numpy(IMAGE)[None, None], size=(83, 128), mode="bilinear", antialias=True)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    colour = (255 * grey - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    return F.pad(colour, (0, 0, 0, 128 - 83))


@pytest.mark.parametrize("kernel", ["low-rank", "blockwise"])
def test_the_encoder_equals_transformers_eager_encoder(pair, kernel):
    ours, theirs = pair
    with use_policy(AttentionPolicy(None, kernel)):
        embedding = ours.encode(IMAGE)
    with torch.no_grad():
        expected = theirs.get_image_embeddings(their_input())
    assert torch.allclose(embedding.features[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1])),
        Prompts(np.array([[20.0, 30.0], [3.0, 70.0]], np.float32), np.array([1, 0])),
        Prompts(*NO_POINTS, box=(10, 20, 40, 60)),
        Prompts(np.array([[20.0, 30.0]], np.float32), np.array([0]), box=(10, 20, 40, 60)),
        Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1]), mask_logits=MASK),
        Prompts(*NO_POINTS, mask_logits=MASK),
    ],
    ids=["click", "clicks", "box", "click and box", "click and mask", "mask"],
)
def test_masks_equal_those_of_transformers_for_the_same_prompts(pair, prompts):
    ours, theirs = pair
    predicted = ours.decode(ours.encode(IMAGE), prompts)
    # native pixel centres and box edges in the 83 × 128 resized image; SAM adds half a pixel by itself
    scale = np.array([128 / 77, 83 / 50])
    given = {}
    if len(prompts.points_yx):
        given["input_points"] = torch.tensor((prompts.points_yx[:, ::-1] + 0.5) * scale - 0.5).float()[None, None]
        given["input_labels"] = torch.tensor(prompts.point_labels)[None, None]
    if prompts.box is not None:
        y0, x0, y1, x1 = prompts.box
        corners = np.array([[x0, y0], [x1, y1]]) * scale - 0.5
        given["input_boxes"] = torch.tensor(corners).float().reshape(1, 1, 4)
    if prompts.mask_logits is not None:
        resized = F.interpolate(torch.from_numpy(MASK)[None, None], size=(83, 128), mode="bilinear", antialias=True)
        whole = F.pad(resized, (0, 0, 0, 45), value=-8.0)
        given["input_masks"] = F.interpolate(whole, size=(32, 32), mode="bilinear", antialias=True)
    several = len(prompts.points_yx) == 1 and prompts.box is None and prompts.mask_logits is None
    with torch.no_grad():
        out = theirs(pixel_values=their_input(), multimask_output=several, **given)
    whole = F.interpolate(out.pred_masks[0], size=(128, 128), mode="bilinear")[..., :83, :]
    expected = F.interpolate(whole, size=(50, 77), mode="bilinear", antialias=True)[0]
    assert predicted.logits.shape == ((3 if several else 1), 50, 77)
    assert np.allclose(predicted.logits, expected.numpy(), atol=1e-4)
    assert np.allclose(predicted.scores, out.iou_scores[0, 0].numpy(), atol=1e-4)


def test_relative_positions_are_interpolated_as_transformers_does(pair):
    _, theirs = pair
    attention = theirs.vision_encoder.layers[1].attn
    trained = attention.rel_pos_h.detach()
    for size in (8, 5, 13):
        assert torch.allclose(relative_table(trained, size), attention.get_rel_pos(size, size, trained), atol=1e-6)


def test_bfloat16_encodes_to_nearly_the_same(pair):
    ours, _ = pair
    exact = ours.encode(IMAGE).features[0]
    ours.dtype = torch.bfloat16
    try:
        coarse = ours.encode(IMAGE).features[0]
    finally:
        ours.dtype = torch.float32
    assert coarse.dtype == torch.float32
    assert 0 < (coarse - exact).norm() / exact.norm() < 2e-2


def test_random_weights_come_from_their_seed_and_make_heads_look_somewhere(pair):
    ours, _ = pair
    again, other = random_sam(sam_config(), 0).state_dict(), random_sam(sam_config(), 1).state_dict()
    own = ours.network.state_dict()
    assert all(torch.equal(own[name], again[name]) for name in own)
    assert not torch.equal(
        own["vision_encoder.layers.0.attn.qkv.weight"], other["vision_encoder.layers.0.attn.qkv.weight"]
    )
    assert not any(value.isnan().any() for value in own.values())
    with AttentionProbe(ours) as probe:
        ours.encode(IMAGE)
    for summary in probe.summary():
        assert (summary.entropy_fraction < 0.97).all()


def test_meta_names_become_transformers_names_one_to_one(pair):
    ours, _ = pair
    names = meta_names(depth=3, global_width=32)
    renamed = transformers_names({name: torch.zeros(()) for name in names})
    assert sorted(renamed) == sorted(ours.network.state_dict())
    assert len(renamed) == len(names) + 1  # the Fourier matrix has two names in transformers
    vit_b = meta_names(depth=12, global_width=768)
    assert len(vit_b) == 314  # as many tensors as sam_vit_b_01ec64.pth has


def test_meta_layers_of_perceptrons_keep_their_order():
    value = {f"mask_decoder.iou_prediction_head.layers.{i}.weight": torch.tensor(float(i)) for i in range(3)}
    renamed = transformers_names({"image_encoder.pos_embed": torch.zeros(()), **value})
    head = "mask_decoder.iou_prediction_head"
    assert [renamed[f"{head}.{part}.weight"].item() for part in ("proj_in", "layers.0", "proj_out")] == [0, 1, 2]


def test_a_checkpoint_fills_the_network_by_either_naming(tmp_path):
    card = find_card("sam-vit-b")
    state = random_sam(SamConfig(), 3).state_dict()
    model = build(card, state, seed=0, device=torch.device("cpu"), dtype=torch.float32)
    loaded = model.network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    state.pop("vision_encoder.pos_embed")
    with pytest.raises(UnreadableWeights, match=r"vision_encoder\.pos_embed"):
        build(card, state, seed=0, device=torch.device("cpu"), dtype=torch.float32)


def test_an_unknown_architecture_is_refused():
    card: ModelCard = replace(find_card("sam-vit-b"), name="sam-vit-x", architecture="vit-x")
    with pytest.raises(UnsupportedModel, match="vit-x"):
        build(card, None, seed=0, device=torch.device("cpu"), dtype=torch.float32)


def test_medsam_sees_intensities_as_they_are():
    sam, medsam = (
        SamAdapter(find_card(name), random_sam(sam_config(), 0), torch.device("cpu"), torch.float32)
        for name in ("sam-vit-b", "medsam")
    )
    seen = []
    for model in (sam, medsam):
        hook = model.network.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model.encode(np.full((40, 40), 0.5, np.float32))
        hook.remove()
    assert torch.allclose(seen[1], torch.full((1, 3, 128, 128), 0.5))
    assert torch.allclose(
        seen[0][0, :, 0, 0], torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    )


def test_medsam_stretches_both_sides_to_the_square_because_its_card_says_so():
    card = find_card("medsam")
    padded = replace(card, name="medsam-padded", input=replace(card.input, fit="pad"))
    stretched, longest = (
        SamAdapter(one, random_sam(sam_config(), 0), torch.device("cpu"), torch.float32) for one in (card, padded)
    )
    assert card.input.fit == "stretch"
    assert stretched.placement((50, 77), (3.0, 1.0)).resized_shape == (128, 128)
    assert longest.placement((50, 77)).resized_shape == (83, 128)
    # a click keeps its place in the image, and the mask comes back on its pixels
    assert stretched.placement((50, 77)).to_input((24.5, 38)) == (63.5, 63.5)
    box = Prompts(*NO_POINTS, box=(10, 20, 40, 60))
    seen = []
    hook = stretched.network.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    predicted = stretched.decode(stretched.encode(IMAGE), box)
    hook.remove()
    whole = F.interpolate(torch.from_numpy(IMAGE)[None, None], size=(128, 128), mode="bilinear", antialias=True)
    assert torch.allclose(seen[0], whole.expand(1, 3, -1, -1))
    assert predicted.logits.shape == (1, 50, 77)


def test_pixels_that_are_no_squares_keep_their_proportions(pair):
    ours, _ = pair
    embedding = ours.encode(np.zeros((20, 100), np.float32), (5.0, 1.0))
    assert embedding.placement.resized_shape == (128, 128)


def test_heatmaps_lie_where_attention_is():
    model = SamAdapter(find_card("sam-vit-b"), random_sam(sam_config(), 0), torch.device("cpu"), torch.float32)
    for layer in model.network.vision_encoder.layers:
        layer.layer_norm1 = torch.nn.Identity()
        first_head(layer.attn.qkv, 8, parts=3)
        layer.attn.rel_pos_h.zero_()
        layer.attn.rel_pos_w.zero_()
        feed(layer, lambda tokens: place_code(tokens.shape[1:3], 8, 32)[None])
    with AttentionProbe(model) as probe:
        model.encode(IMAGE)
    assert all(site.key_grid.shape == (8, 8) for site in probe.sites)
    for query in ((25, 38), (9, 62)):
        assert_heatmaps_peak_at(probe, query)


@pytest.mark.parametrize("kernel", ["low-rank", "blockwise"])
def test_images_together_or_compiled_are_encoded_as_one_by_one(pair, kernel):
    ours, theirs = pair
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    encoder = ours.network.vision_encoder
    with use_policy(AttentionPolicy(None, kernel)), torch.no_grad():
        expected = theirs.vision_encoder(pixels).last_hidden_state
        together = encoder(pixels).last_hidden_state
        layer = torch.compile(encoder.layers[0], backend="eager")
        tokens = torch.randn(2, 8, 8, 32, generator=torch.Generator().manual_seed(1))
        compiled, plain = layer(tokens), encoder.layers[0](tokens)
    assert torch.allclose(together, expected, atol=1e-4)
    assert torch.allclose(compiled, plain, atol=1e-5)


def test_a_block_leaves_the_tokens_it_was_given_as_they_were(pair):
    ours, _ = pair
    # a patch embedding's order of memory: channels far apart
    tokens = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1)).permute(0, 2, 3, 1)
    before = tokens.clone()
    with torch.no_grad():
        changed = ours.network.vision_encoder.layers[1](tokens)
    with torch.enable_grad():
        in_one_go = ours.network.vision_encoder.layers[1](tokens)
    assert torch.equal(tokens, before)
    assert torch.allclose(changed, in_one_go, atol=1e-5)
