"""The SAM 2.1 adapter against transformers' own network and Meta's published names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from local_attention import assert_heatmaps_peak_at, feed, first_head, place_code
from small_models import SAM2_SIZE, SMALL_HIERA, small_sam2_network
from torch import nn
from transformers import Sam2Model

from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models import find_card
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.sam2 import Hiera, Sam2Adapter, build, empty_sam2, sam2_config
from napari_medtransformer.models.sam2_names import transformers_names
from napari_medtransformer.models.weights import fill, guess_family

IMAGE = np.random.default_rng(0).random((50, 77), dtype=np.float32)
MASK = np.random.default_rng(1).normal(size=(50, 77)).astype(np.float32)
NO_POINTS = (np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
CPU = torch.device("cpu")


def published_names(hiera=SMALL_HIERA):
    """The names of the tensors in Meta's files, from its published modules: the image part, then the video part."""
    trunk = "image_encoder.trunk"
    names = [f"{trunk}.pos_embed", f"{trunk}.pos_embed_window", "no_mem_embed"]
    pairs = [f"{trunk}.patch_embed.proj", *(f"image_encoder.neck.convs.{i}.conv" for i in range(4))]
    firsts = np.cumsum(hiera.blocks)[:-1]
    for i in range(sum(hiera.blocks)):
        block = f"{trunk}.blocks.{i}"
        pairs += [f"{block}.{p}" for p in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.layers.0", "mlp.layers.1")]
        pairs += [f"{block}.proj"] if i in firsts else []
    prompts, decoder = "sam_prompt_encoder", "sam_mask_decoder"
    names += [f"{prompts}.pe_layer.positional_encoding_gaussian_matrix"]
    names += [f"{prompts}.point_embeddings.{i}.weight" for i in range(4)]
    names += [f"{prompts}.not_a_point_embed.weight", f"{prompts}.no_mask_embed.weight"]
    pairs += [f"{prompts}.mask_downscaling.{i}" for i in (0, 1, 3, 4, 6)]
    projections = [f"{side}_proj" for side in ("q", "k", "v", "out")]
    for i in range(2):
        layer = f"{decoder}.transformer.layers.{i}"
        for module in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            pairs += [f"{layer}.{module}.{p}" for p in projections]
        pairs += [f"{layer}.norm{n}" for n in (1, 2, 3, 4)] + [f"{layer}.mlp.layers.{n}" for n in (0, 1)]
    pairs += [f"{decoder}.transformer.final_attn_token_to_image.{p}" for p in projections]
    pairs += [f"{decoder}.transformer.norm_final_attn", f"{decoder}.conv_s0", f"{decoder}.conv_s1"]
    names += [f"{decoder}.{token}.weight" for token in ("iou_token", "mask_tokens", "obj_score_token")]
    pairs += [f"{decoder}.output_upscaling.{i}" for i in (0, 1, 3)]
    heads = [f"output_hypernetworks_mlps.{i}" for i in range(4)] + ["iou_prediction_head", "pred_obj_score_head"]
    pairs += [f"{decoder}.{head}.layers.{j}" for head in heads for j in range(3)]
    return names + [f"{name}.{part}" for name in pairs for part in ("weight", "bias")]


VIDEO_NAMES = [
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "mask_downsample.weight",
    "memory_attention.layers.0.self_attn.q_proj.weight",
    "memory_encoder.fuser.layers.0.gamma",
    "obj_ptr_proj.layers.0.weight",
    "obj_ptr_tpos_proj.bias",
]


def published(state):
    """A state under Meta's names, the four point embeddings apart and the video part beside it."""
    names = [name for name in published_names() if ".point_embeddings." not in name]
    found = transformers_names({name: torch.tensor(i) for i, name in enumerate(names)})
    checkpoint = {names[int(number)]: state[name] for name, number in found.items()}
    for i, row in enumerate(state["prompt_encoder.point_embed.weight"]):
        checkpoint[f"sam_prompt_encoder.point_embeddings.{i}.weight"] = row[None]
    return checkpoint | {name: torch.zeros(1) for name in VIDEO_NAMES}


@pytest.fixture(scope="module")
def pair():
    """Our adapter, loaded from the published format, and transformers' eager network with the same weights."""
    source = small_sam2_network()
    checkpoint = published(source.state_dict())
    assert guess_family(checkpoint) == "SAM 2 (Meta's names)"
    network = empty_sam2(sam2_config(SMALL_HIERA, SAM2_SIZE))
    fill(network, transformers_names(checkpoint))
    ours = Sam2Adapter(find_card("sam2.1-hiera-t"), network, CPU, torch.float32)
    theirs = Sam2Model._from_config(sam2_config(SMALL_HIERA, SAM2_SIZE), attn_implementation="eager").eval()
    theirs.load_state_dict(source.state_dict())
    return ours, theirs


def their_input():
    """The image as SAM 2's own preprocessing makes it: both sides stretched, ImageNet's mean and deviation."""
    grey = F.interpolate(torch.from_numpy(IMAGE)[None, None], size=(SAM2_SIZE,) * 2, mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (grey - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1])),
        Prompts(np.array([[20.0, 30.0], [3.0, 70.0]], np.float32), np.array([1, 0])),
        Prompts(*NO_POINTS, box=(10, 20, 40, 60)),
        Prompts(np.array([[20.0, 30.0]], np.float32), np.array([0]), box=(10, 20, 40, 60)),
        Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1]), mask_logits=MASK),
    ],
    ids=["click", "clicks", "box", "click and box", "click and mask"],
)
def test_masks_equal_those_of_transformers_for_the_same_prompts(pair, prompts):
    ours, theirs = pair
    embedding = ours.encode(IMAGE)
    predicted = ours.decode(embedding, prompts)
    scale = np.array([SAM2_SIZE / 77, SAM2_SIZE / 50])
    given = {}
    if len(prompts.points_yx):
        given["input_points"] = torch.tensor((prompts.points_yx[:, ::-1] + 0.5) * scale - 0.5).float()[None, None]
        given["input_labels"] = torch.tensor(prompts.point_labels)[None, None]
    if prompts.box is not None:
        y0, x0, y1, x1 = prompts.box
        given["input_boxes"] = torch.tensor(np.array([[x0, y0], [x1, y1]]) * scale - 0.5).float().reshape(1, 1, 4)
    if prompts.mask_logits is not None:
        whole = F.interpolate(
            torch.from_numpy(MASK)[None, None], size=(SAM2_SIZE,) * 2, mode="bilinear", antialias=True
        )
        given["input_masks"] = F.interpolate(whole, size=(32, 32), mode="bilinear", antialias=True)
    several = len(prompts.points_yx) == 1 and prompts.box is None and prompts.mask_logits is None
    with torch.no_grad():
        out = theirs(pixel_values=their_input(), multimask_output=several, **given)
    for ours_level, theirs_level in zip(embedding.features, out.image_embeddings, strict=True):
        assert torch.allclose(ours_level, theirs_level, atol=1e-4)
    whole = F.interpolate(out.pred_masks[0], size=(SAM2_SIZE,) * 2, mode="bilinear")
    expected = F.interpolate(whole, size=(50, 77), mode="bilinear", antialias=True)[0]
    assert predicted.logits.shape == ((3 if several else 1), 50, 77)
    assert np.allclose(predicted.logits, expected.numpy(), atol=1e-4)
    assert np.allclose(predicted.scores, out.iou_scores[0, 0].numpy(), atol=1e-4)


def test_a_mask_alone_is_refined_without_an_empty_click(pair):
    ours, _ = pair
    seen = []
    attention = ours.network.mask_decoder.transformer.layers[0].self_attn
    hook = attention.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["query"]), with_kwargs=True)
    ours.decode(ours.encode(IMAGE), Prompts(*NO_POINTS, mask_logits=MASK))
    hook.remove()
    assert seen[0].shape[-2] == 1 + 1 + 4  # presence, score and masks, as in Meta's decoder


def test_published_names_become_transformers_names_one_to_one(pair):
    ours, _ = pair
    names = published_names() + VIDEO_NAMES
    renamed = transformers_names({name: torch.zeros(1, 8) for name in names})
    assert sorted(renamed) == sorted(ours.network.state_dict())
    tiny = Hiera(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7)
    assert len(published_names(tiny)) == 311  # of the 471 tensors in sam2.1_hiera_tiny.pt, 160 serve videos


def test_every_published_size_has_the_parameters_of_its_file():
    from napari_medtransformer.models.sam2 import _HIERA

    # parameters of the image part in Meta's files: Hiera, its neck, prompt encoder, decoder and no_mem_embed
    counted = {"hiera-t": 31.4, "hiera-s": 38.5, "hiera-b-plus": 73.1, "hiera-l": 216.3}
    for name, hiera in _HIERA.items():
        with torch.device("meta"):
            network = Sam2Model(sam2_config(hiera, 1024))
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        assert millions == pytest.approx(counted[name], abs=1.0), name


def test_heatmaps_lie_where_attention_is():
    model = Sam2Adapter(find_card("sam2.1-hiera-t"), small_sam2_network(), CPU, torch.float32)
    for block in model.network.vision_encoder.backbone.blocks:
        block.layer_norm1 = nn.Identity()
        first_head(block.attn.qkv, 16, parts=3)
        feed(block, lambda tokens, dim=block.dim: place_code(tokens.shape[1:3], 16, dim)[None])
    with AttentionProbe(model) as probe:
        model.encode(IMAGE)
    # queries of the first block of a stage are pooled
    assert [s.query_grid.shape for s in probe.sites] == [(32, 32), *[(16, 16)] * 2, *[(8, 8)] * 3, (4, 4)]
    assert [s.key_grid.shape for s in probe.sites] == [*[(32, 32)] * 2, *[(16, 16)] * 2, *[(8, 8)] * 3]
    assert [s.kind for s in probe.sites] == [*["window"] * 4, "global", "window", "window"]
    for query in ((25, 38), (9, 62)):
        assert_heatmaps_peak_at(probe, query)


def test_an_unknown_architecture_is_refused():
    from dataclasses import replace

    card = replace(find_card("medsam2"), name="sam2-x", architecture="hiera-x")
    with pytest.raises(UnsupportedModel, match="hiera-x"):
        build(card, None, seed=0, device=CPU, dtype=torch.float32)
