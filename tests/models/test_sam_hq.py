"""The SAM-HQ adapter against transformers' own network and the authors' published names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from local_attention import assert_heatmaps_peak_at, feed, first_head, place_code
from published_names import meta_names
from small_models import sam_config
from transformers import SamHQConfig, SamHQModel

from napari_medtransformer.attention.policy import AttentionPolicy, use_policy
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.models import find_card
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.sam import empty_sam, random_sam
from napari_medtransformer.models.sam_blocks import FusedSamLayer
from napari_medtransformer.models.sam_hq import SamHQAdapter
from napari_medtransformer.models.sam_names import transformers_names
from napari_medtransformer.models.weights import fill, guess_family

IMAGE = np.random.default_rng(0).random((50, 77), dtype=np.float32)
CPU = torch.device("cpu")


def published_names():
    """The authors' names: Meta's and those of the layers that SAM-HQ adds to the decoder."""
    pairs = [f"mask_decoder.hf_mlp.layers.{i}" for i in range(3)]
    for module in ("compress_vit_feat", "embedding_encoder", "embedding_maskfeature"):
        pairs += [f"mask_decoder.{module}.{i}" for i in (0, 1, 3)]
    added = [f"{name}.{part}" for name in pairs for part in ("weight", "bias")]
    return [*meta_names(depth=3, global_width=32), "mask_decoder.hf_token.weight", *added]


def published(state):
    """A state under the authors' names."""
    names = published_names()
    # each published name carries itself through the renaming
    found = transformers_names({name: torch.tensor(i) for i, name in enumerate(names)})
    return {names[int(number)]: state[name] for name, number in found.items()}


@pytest.fixture(scope="module")
def pair():
    """Our adapter, loaded from the published format, and transformers' eager network with the same weights."""
    source = random_sam(sam_config(SamHQConfig), 0, SamHQModel)
    network = empty_sam(sam_config(SamHQConfig), SamHQModel)
    checkpoint = published(source.state_dict())
    assert guess_family(checkpoint) == "SAM-HQ"
    fill(network, transformers_names(checkpoint))
    ours = SamHQAdapter(find_card("sam-hq-vit-b"), network, CPU, torch.float32)
    eager = sam_config(SamHQConfig)
    eager._attn_implementation = "eager"
    theirs = SamHQModel(eager).eval()
    theirs.load_state_dict(source.state_dict())
    assert not isinstance(theirs.vision_encoder.layers[0], FusedSamLayer)
    return ours, theirs


def their_input():
    grey = F.interpolate(torch.from_numpy(IMAGE)[None, None], size=(83, 128), mode="bilinear", antialias=True)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    colour = (255 * grey - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    return F.pad(colour, (0, 0, 0, 128 - 83))


@pytest.mark.parametrize("kernel", ["low-rank", "blockwise"])
@pytest.mark.parametrize("with_box", [False, True], ids=["click", "click and box"])
def test_masks_equal_those_of_transformers(pair, kernel, with_box):
    ours, theirs = pair
    prompts = Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1]), (10, 20, 40, 60) if with_box else None)
    with use_policy(AttentionPolicy(None, kernel)):
        predicted = ours.decode(ours.encode(IMAGE), prompts)
    scale = np.array([128 / 77, 83 / 50])
    given = {
        "input_points": torch.tensor((prompts.points_yx[:, ::-1] + 0.5) * scale - 0.5).float()[None, None],
        "input_labels": torch.tensor([[[1]]]),
    }
    if with_box:
        given["input_boxes"] = torch.tensor(np.array([[20, 10], [60, 40]]) * scale - 0.5).float().reshape(1, 1, 4)
    with torch.no_grad():
        out = theirs(pixel_values=their_input(), multimask_output=not with_box, **given)
    whole = F.interpolate(out.pred_masks[0], size=(128, 128), mode="bilinear")[..., :83, :]
    expected = F.interpolate(whole, size=(50, 77), mode="bilinear", antialias=True)[0]
    assert predicted.logits.shape == ((1 if with_box else 3), 50, 77)
    assert np.allclose(predicted.logits, expected.numpy(), atol=1e-4)
    assert np.allclose(predicted.scores, out.iou_scores[0, 0].numpy(), atol=1e-4)


def test_published_names_become_transformers_names_one_to_one(pair):
    ours, _ = pair
    renamed = transformers_names({name: torch.zeros(()) for name in published_names()})
    assert sorted(renamed) == sorted(ours.network.state_dict())
    assert len(renamed) == len(published_names()) + 1  # the Fourier matrix has two names in transformers


def test_sites_have_the_grids_that_ran_and_heatmaps_lie_where_attention_is():
    model = SamHQAdapter(
        find_card("sam-hq-vit-b"), random_sam(sam_config(SamHQConfig), 0, SamHQModel), CPU, torch.float32
    )
    for layer in model.network.vision_encoder.layers:
        layer.layer_norm1 = torch.nn.Identity()
        first_head(layer.attn.qkv, 8, parts=3)
        layer.attn.rel_pos_h.zero_()
        layer.attn.rel_pos_w.zero_()
        feed(layer, lambda tokens: place_code(tokens.shape[1:3], 8, 32)[None])
    prompts = Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1]))
    with AttentionProbe(model) as probe:
        model.decode(model.encode(IMAGE), prompts)
    assert [site.name for site in probe.sites] == [spec.name for spec in model.attention_sites()]
    assert [site.kind for site in probe.sites[:3]] == ["window", "global", "window"]
    assert all(site.query_grid.shape == (8, 8) for site in probe.sites[:3])
    for query in ((25, 38), (9, 62)):
        assert_heatmaps_peak_at(probe, query)
    tokens = probe.site("decoder.0.prompt-to-image").query_grid.n_tokens
    assert tokens == len(model.prompt_tokens(prompts)) == 1 + 4 + 1 + 1 + 1
