"""The SAM-Med2D adapter: the authors' names, the block adapter's arithmetic, and how it is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from local_attention import assert_heatmaps_peak_at, feed, first_head, place_code
from published_names import meta_names
from small_models import sam_config, small_sam_med2d
from torch import nn

from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.models import find_card
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.sam import empty_sam
from napari_medtransformer.models.sam_med2d import BlockAdapter, SamMed2DAdapter, adapted_sam
from napari_medtransformer.models.sam_names import transformers_names
from napari_medtransformer.models.weights import fill, guess_family, load_state

IMAGE = np.random.default_rng(0).random((50, 77), dtype=np.float32)
CPU = torch.device("cpu")
CLICK = Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1]))


def published_names(depth=3):
    """The authors' names: Meta's, and those of the adapter in every block of the encoder."""
    block = [f"image_encoder.blocks.{i}.Adapter" for i in range(depth)]
    parts = ("norm.weight", "norm.bias", "channel.0.weight", "channel.2.weight", "spatial.0.weight", "spatial.2.weight")
    return [*meta_names(depth=depth, global_width=32), *(f"{b}.{part}" for b in block for part in parts)]


def published(state):
    names = published_names()
    found = transformers_names({name: torch.tensor(i) for i, name in enumerate(names)})
    return {names[int(number)]: state[name] for name, number in found.items()}


def test_a_checkpoint_of_the_published_format_loads_strictly_and_gives_the_same_masks(tmp_path):
    source = small_sam_med2d()
    state = published(source.network.state_dict())
    assert len(state) == len(published_names())
    assert guess_family(state) == "SAM-Med2D"
    # the authors' file holds the optimiser beside the network
    torch.save({"model": state, "optimizer": torch.optim.Adam([nn.Parameter(torch.zeros(2))])}, tmp_path / "w.pth")
    network = empty_sam(sam_config(window_size=5), adapted_sam)
    fill(network, transformers_names(load_state(tmp_path / "w.pth")))
    loaded = SamMed2DAdapter(find_card("sam-med2d"), network, CPU, torch.float32)
    one, other = (model.decode(model.encode(IMAGE), CLICK) for model in (source, loaded))
    assert np.array_equal(one.logits, other.logits)


def test_the_block_adapter_computes_what_the_paper_draws():
    torch.manual_seed(0)
    adapter = BlockAdapter(8).eval()
    tokens = torch.randn(2, 6, 4, 8)
    # written out: squeeze, excite, convolve down and up, add, normalise
    channels = tokens.permute(0, 3, 1, 2)
    squeezed = nn.functional.adaptive_avg_pool2d(channels, 1)[:, :, 0, 0]
    excited = (adapter.channel[2].weight @ (adapter.channel[0].weight @ squeezed.T).relu()).T.sigmoid()
    weighted = channels * excited[:, :, None, None]
    down = nn.functional.conv2d(weighted, adapter.spatial[0].weight, stride=2, padding=1).relu()
    up = nn.functional.conv_transpose2d(down, adapter.spatial[2].weight, stride=2, padding=1).relu()
    expected = nn.functional.layer_norm((channels + up).permute(0, 2, 3, 1), (8,))
    assert torch.allclose(adapter(tokens), expected, atol=1e-5)


def test_the_adapter_takes_part_in_every_block():
    model = small_sam_med2d()
    before = model.encode(IMAGE).features[0]
    for layer in model.network.vision_encoder.layers:
        layer.mlp.adapter.norm.weight.zero_()
        layer.mlp.adapter.norm.bias.zero_()
    assert not torch.allclose(before, model.encode(IMAGE).features[0], atol=1e-3)


def test_an_image_fills_the_square_and_every_prompt_gets_three_candidates():
    model = small_sam_med2d()
    embedding = model.encode(IMAGE, (3.0, 1.0))
    assert embedding.placement.resized_shape == (128, 128)
    box = Prompts(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box=(5, 5, 40, 60))
    for prompts in (CLICK, box):
        assert model.decode(embedding, prompts).logits.shape == (3, 50, 77)


def test_an_earlier_answer_comes_back_as_probabilities():
    model = small_sam_med2d()
    seen = []
    hook = model.network.prompt_encoder.mask_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits = np.full(IMAGE.shape, 3.0, np.float32)
    model.decode(model.encode(IMAGE), Prompts(CLICK.points_yx, CLICK.point_labels, mask_logits=logits))
    hook.remove()
    assert torch.allclose(seen[0], torch.full((1, 1, 32, 32), 3.0).sigmoid())


def test_heatmaps_lie_where_attention_is():
    model = small_sam_med2d()
    for layer in model.network.vision_encoder.layers:
        layer.layer_norm1 = nn.Identity()
        first_head(layer.attn.qkv, 8, parts=3)
        layer.attn.rel_pos_h.zero_()
        layer.attn.rel_pos_w.zero_()
        feed(layer, lambda tokens: place_code(tokens.shape[1:3], 8, 32)[None])
    with AttentionProbe(model) as probe:
        model.encode(IMAGE)
    assert [site.kind for site in probe.sites] == ["window", "global", "window"]
    assert all(site.key_grid.shape == (8, 8) for site in probe.sites)
    for query in ((25, 38), (9, 62)):
        assert_heatmaps_peak_at(probe, query)


@pytest.mark.parametrize("name", ["image_encoder.blocks.1.Adapter.norm.bias", "image_encoder.neck.0.weight"])
def test_a_missing_tensor_is_named(name):
    from napari_medtransformer.errors import UnreadableWeights

    state = published(small_sam_med2d().network.state_dict())
    del state[name]
    with pytest.raises(UnreadableWeights, match="1 missing"):
        fill(empty_sam(sam_config(window_size=5), adapted_sam), transformers_names(state))
