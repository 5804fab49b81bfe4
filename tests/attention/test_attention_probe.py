"""The probe against networks whose attention is computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.errors import InvalidOption, NothingCaptured, QueryOutOfGrid, UnknownSite, UnsupportedModel
from napari_medtransformer.models.base import Prompts

IMAGE = np.random.default_rng(0).random((50, 77), dtype=np.float32)
CLICK = Prompts(np.array([[20.0, 30.0]], np.float32), np.array([1]))


def eager_weights(model):
    """Attention weights of a small SAM's encoder blocks by transformers' own eager code: name → (B·heads, N, N)."""
    from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionLayer

    weights = {}

    def record(name, original, window):
        def hook(module, args, output):
            (hidden,) = args
            if window:
                hidden, _ = SamVisionLayer.window_partition(None, hidden, window)
            weights[name] = original(hidden)[1].detach()

        return hook

    handles = []
    config = model.network.config.vision_config
    for i, layer in enumerate(model.network.vision_encoder.layers):
        original = SamVisionAttention(config, layer.window_size).eval()
        original.load_state_dict(layer.attn.state_dict())
        handles.append(layer.attn.register_forward_hook(record(f"encoder.{i}", original, layer.window_size)))
    return weights, handles


@pytest.fixture
def probed(small_sam):
    """A small SAM's image and click under the probe, and the weights that eager attention computes."""
    weights, handles = eager_weights(small_sam)
    with AttentionProbe(small_sam) as probe:
        embedding = small_sam.encode(IMAGE)
        small_sam.decode(embedding, CLICK)
    for handle in handles:
        handle.remove()
    return probe, weights


def test_rows_of_every_encoder_site_equal_transformers_eager_attention(probed):
    probe, weights = probed
    for name, expected in weights.items():
        site = probe.site(name)
        tokens = torch.arange(site.query_grid.n_tokens)
        rows = probe.rows(site, tokens)
        expected = expected.reshape(-1, site.heads, *expected.shape[1:])
        window, place = site.query_grid.window_of_token.unbind(1)
        assert torch.allclose(rows.transpose(0, 1), expected[window, :, place], atol=1e-5)
        assert rows.dtype == torch.float32
        assert torch.allclose(rows.sum(-1), torch.ones(()), atol=1e-5)


def test_rows_of_decoder_sites_sum_to_one_and_know_their_sides(probed):
    probe, _ = probed
    kinds = {site.name: site for site in probe.sites if site.name.startswith("decoder")}
    assert len(kinds) == 7
    tokens = 5 + 2  # one score and four mask tokens, the click and SAM's padding point
    assert kinds["decoder.0.prompts"].query_grid.n_tokens == tokens
    assert kinds["decoder.final.prompt-to-image"].key_grid.shape == (8, 8)
    assert kinds["decoder.1.image-to-prompt"].query_grid.shape == (8, 8)
    for site in kinds.values():
        rows = probe.rows(site, range(site.query_grid.n_tokens))
        assert rows.shape == (site.heads, site.query_grid.n_tokens, site.key_grid.n_tokens)
        assert torch.allclose(rows.sum(-1), torch.ones(()), atol=1e-5)


def test_a_heatmap_of_a_window_site_is_its_window_and_zero_elsewhere(probed):
    probe, weights = probed
    heatmap = probe.heatmap("encoder.0", (20, 30))
    grid = probe.site("encoder.0").query_grid
    window, place = grid.window_of_token[grid.token_of((20, 30))].tolist()
    # stitched by torch: windows of 3 on the 8 × 8 grid padded to 9 × 9
    rows = weights["encoder.0"].reshape(9, 4, 9, 9)[window, :, place].reshape(4, 3, 3)
    canvas = torch.zeros(4, 9, 9)
    y, x = divmod(window, 3)
    canvas[:, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3] = rows
    assert np.allclose(heatmap.values, canvas[:, :8, :8].numpy(), atol=1e-5)
    assert np.allclose(heatmap.values.sum((1, 2)) + heatmap.padding_mass, 1, atol=1e-5)


def test_a_heatmap_brightens_where_the_key_is(small_sam):
    """A network whose only key that matters lies at a known pixel."""
    with AttentionProbe(small_sam, ["encoder.1"]) as probe:
        small_sam.encode(IMAGE)
    heatmap = probe.heatmap("encoder.1", (20, 30))
    token = probe.site("encoder.1").query_grid.token_of((20, 30))
    row = probe.rows("encoder.1", [token])[:, 0]
    best = row.argmax(dim=1)
    for head in range(4):
        centre = heatmap.grid.native_centre(int(best[head]))
        y, x = np.unravel_index(heatmap.values[head].argmax(), (8, 8))
        drawn = np.asarray(heatmap.translate) + np.asarray(heatmap.scale) * (y, x)
        assert np.allclose(drawn, centre)


def test_a_slice_coordinate_before_a_2d_query_is_left_out(probed):
    probe, _ = probed
    assert np.array_equal(probe.heatmap("encoder.1", (7, 20, 30)), probe.heatmap("encoder.1", (20, 30)))


def test_pixels_show_their_token_and_smoothing_keeps_its_centre(probed):
    probe, _ = probed
    heatmap = probe.heatmap("encoder.1", (20, 30))
    tiles = heatmap.on_pixels(smooth=False)
    assert tiles.shape == (4, 50, 77)
    index = np.ix_(*heatmap.grid.pixel_tokens)
    assert np.array_equal(tiles[0], heatmap.values[0][index])
    smooth = heatmap.on_pixels()
    assert smooth.min() >= heatmap.values.min() - 1e-7
    assert smooth.max() <= heatmap.values.max() + 1e-7


def test_mean_row_and_received_equal_the_explicit_matrix(probed):
    probe, weights = probed
    matrix = weights["encoder.1"]
    mask = np.zeros((50, 77), bool)
    mask[10:33, 5:40] = True
    counts = probe.site("encoder.1").query_grid.pixels_per_token(mask)
    expected = torch.einsum("n,hnk->hk", counts / counts.sum(), matrix).reshape(4, 8, 8)
    assert np.allclose(probe.mean_row("encoder.1", mask).values, expected.numpy(), atol=1e-5)
    assert np.allclose(probe.received("encoder.1").values, matrix.sum(1).reshape(4, 8, 8).numpy(), atol=1e-4)


def test_entropy_and_distance_equal_the_explicit_matrix(probed):
    probe, weights = probed
    matrix = weights["encoder.1"].double()
    summary = {s.site.name: s for s in probe.summary(spacing=(0.7, 2.5))}["encoder.1"]
    entropy = -(matrix * matrix.log()).sum(-1).mean(-1)
    assert np.allclose(summary.entropy, entropy, atol=1e-5)
    assert np.allclose(summary.entropy_fraction, entropy / np.log(64), atol=1e-5)
    grid = probe.site("encoder.1").query_grid
    centres = np.array([grid.native_centre(t) for t in range(64)]) * (0.7, 2.5)
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    assert np.allclose(summary.distance, (matrix.numpy() * apart).sum(-1).mean(-1), rtol=1e-5)
    assert summary.distance_unit == "mm"


def test_window_distances_leave_the_padding_out(probed):
    probe, weights = probed
    site = probe.site("encoder.0")
    matrix = weights["encoder.0"].reshape(9, 4, 9, 9).double().numpy()
    _, distance = probe.entropy_and_distance("encoder.0")
    token = 63  # its window of 9 tokens holds 4 real ones
    window, place = site.query_grid.window_of_token[token].tolist()
    keys = site.key_grid.window_tokens[window].numpy()
    assert (keys >= 0).sum() == 4
    row = matrix[window, :, place][:, keys >= 0]
    centres = np.array([site.key_grid.native_centre(k) for k in keys[keys >= 0]])
    apart = np.linalg.norm(centres - np.asarray(site.query_grid.native_centre(token)), axis=-1)
    assert np.allclose(distance[:, token], (row * apart).sum(-1) / row.sum(-1), rtol=1e-5)


def test_rollout_equals_the_product_of_matrices(probed):
    probe, weights = probed
    total = torch.eye(64, dtype=torch.float64)
    for name, matrix in weights.items():
        grid = probe.site(name).query_grid
        matrix = matrix.reshape(-1, 4, *matrix.shape[1:]).double().mean(1)
        full = torch.zeros(64, 64, dtype=torch.float64)
        for keys, rows in zip(grid.window_tokens, matrix):
            real = keys >= 0
            full[keys[real][:, None], keys[real][None]] = rows[real][:, real]
        total = (0.5 * full + 0.5 * torch.eye(64)) @ total
    for query in ((20, 30), (49, 76)):
        token = probe.site("encoder.1").query_grid.token_of(query)
        rollout = probe.rollout(query)
        assert np.allclose(rollout.values[0].ravel(), total[token], atol=1e-5)
        assert np.isclose(rollout.values.sum() + rollout.padding_mass, 1)


def test_the_probe_changes_no_bit_of_the_result(small_sam):
    before = small_sam.encode(IMAGE).features[0]
    with AttentionProbe(small_sam):
        during = small_sam.encode(IMAGE).features[0]
    assert torch.equal(before, during)


def test_everything_is_restored_also_after_an_error(small_sam):
    def hooks():
        return [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_always_called))
            for m in small_sam.network.modules()
        ]

    before, modes = hooks(), torch.overrides._get_current_function_mode_stack()
    with pytest.raises(RuntimeError, match="broken"), AttentionProbe(small_sam):
        small_sam.encode(IMAGE)
        raise RuntimeError("broken")
    assert hooks() == before
    assert small_sam.on_encode == []
    assert torch.overrides._get_current_function_mode_stack() == modes

    layer = small_sam.network.vision_encoder.layers[1]
    layer.mlp.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError), AttentionProbe(small_sam):
        small_sam.encode(IMAGE)
    assert hooks() == before


def test_a_probe_that_captured_nothing_says_so(small_sam):
    with pytest.raises(NothingCaptured, match="inside the block"), AttentionProbe(small_sam):
        pass
    with pytest.raises(NothingCaptured), AttentionProbe(small_sam, ["decoder.0.prompts"]):
        small_sam.encode(IMAGE)
    embedding = small_sam.encode(IMAGE)
    with AttentionProbe(small_sam) as probe:
        small_sam.decode(embedding, CLICK)
        assert probe.rows("decoder.0.prompts", [0]).shape == (8, 1, 7)


def test_only_the_sites_asked_for_are_kept(small_sam):
    with AttentionProbe(small_sam, ["encoder.2"]) as probe:
        small_sam.encode(IMAGE)
    assert [site.name for site in probe.sites] == ["encoder.2"]
    with pytest.raises(NothingCaptured, match="was not recorded"):
        probe.rows("encoder.1", [0])


def test_wrong_names_and_queries_are_refused_in_words(probed, small_sam):
    probe, _ = probed
    with pytest.raises(UnknownSite, match="encoder.1"):
        probe.rows("encodr.1", [0])
    with pytest.raises(UnknownSite, match="there are"):
        AttentionProbe(small_sam, ["encoder.7"])
    with pytest.raises(QueryOutOfGrid, match="0 to 63"):
        probe.rows("encoder.1", [64])
    with pytest.raises(QueryOutOfGrid, match="outside the image"):
        probe.heatmap("encoder.1", (50, 3))
    with pytest.raises(QueryOutOfGrid, match="no place"):
        probe.heatmap("decoder.0.prompt-to-image", (20, 30))
    with pytest.raises(QueryOutOfGrid, match="empty"):
        probe.mean_row("encoder.1", np.zeros((50, 77), bool))


@pytest.mark.parametrize("query", ["ab", None, (1, "b"), object()])
def test_what_is_no_query_is_refused(probed, query):
    probe, _ = probed
    for ask in (lambda: probe.heatmap("encoder.1", query), lambda: probe.rollout(query)):
        with pytest.raises(QueryOutOfGrid, match="a query is"):
            ask()


@pytest.mark.parametrize("queries", ["ab", None, object(), [[1], [2, 3]]])
def test_what_are_no_tokens_and_no_site_are_refused(probed, queries):
    probe, _ = probed
    with pytest.raises(QueryOutOfGrid, match="token numbers"):
        probe.rows("encoder.1", queries)
    with pytest.raises(UnknownSite, match="a site is its name"):
        probe.rows(queries if not isinstance(queries, str) else 5, [0])


@pytest.mark.parametrize("spacing", ["a", (1, 1, 1), (0, 1), (-1, 1), (float("nan"), 1), 2])
def test_a_spacing_of_distances_is_millimetres_per_axis(probed, spacing):
    with pytest.raises(InvalidOption, match="2 millimetres"):
        probed[0].summary(spacing)


@pytest.mark.parametrize("model", [None, "sam-vit-b", np.zeros(3)])
def test_what_has_no_network_is_not_probed(model):
    with pytest.raises(UnsupportedModel, match="no network"):
        AttentionProbe(model)


def test_sites_that_are_none_are_refused(small_sam):
    for sites in ([None], [5]):
        with pytest.raises(UnknownSite, match="a site is its name"):
            AttentionProbe(small_sam, sites)


def test_queries_and_keys_share_no_memory_with_values(small_sam):
    with AttentionProbe(small_sam) as probe:
        small_sam.encode(IMAGE)
    for site in probe.sites:
        call = probe.captured(site).call
        kept = sum(t.untyped_storage().nbytes() for t in (call.q, call.k))
        assert kept == (call.q.numel() + call.k.numel()) * 4


def test_bfloat16_autocast_is_probed_as_it_ran(small_sam):
    small_sam.dtype = torch.bfloat16
    with AttentionProbe(small_sam) as probe:
        small_sam.encode(IMAGE)
    assert "bfloat16" in probe.kernel("encoder.1")
    assert torch.allclose(probe.rows("encoder.1", [0, 63]).sum(-1), torch.ones(()), atol=1e-5)


class Vit(nn.Module):
    """A ViT that nobody declared: a class token, 8 × 6 patches, and attention called three ways."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 8, stride=8)
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 1)
        self.plain = nn.MultiheadAttention(16, 2, batch_first=True)
        self.qkv = nn.Linear(16, 48)

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = self.encoder(torch.cat([self.cls.expand(len(x), -1, -1), x], 1))
        y, weights = self.plain(x, x, x, average_attn_weights=False)
        q, k, v = self.qkv(y).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        return scaled_dot_product_attention(q, k, v, is_causal=True), weights


def test_sites_of_an_unknown_network_are_found_where_it_calls_attention():
    torch.manual_seed(0)
    vit = Vit().eval()
    image = torch.randn(2, 1, 64, 48)
    with torch.no_grad():
        before = vit(image)
        with AttentionProbe(vit) as probe:
            after = vit(image)
    assert torch.allclose(before[0], after[0], atol=1e-5)
    assert [(s.name, s.kind, s.heads) for s in probe.sites] == [
        ("encoder.layers.0.self_attn", "global", 4),
        ("plain", "global", 2),
        ("network", "global", 4),
    ]
    grid = probe.sites[0].query_grid
    assert (grid.shape, grid.prefix, grid.scale) == ((8, 6), 1, (8.0, 8.0))
    assert torch.allclose(probe.rows("plain", range(49)), after[1][0], atol=1e-5)
    causal = probe.rows("network", range(49))
    assert torch.equal(causal, causal.tril())
    assert np.allclose(probe.heatmap("plain", (20, 30)).values.sum((1, 2)), 1 - after[1][0, :, 16, 0], atol=1e-5)


def test_masks_of_multi_head_attention_reach_the_rows():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True], [False] * 4 + [True]])
    mask = torch.randn(5, 5)
    with torch.no_grad(), AttentionProbe(layer) as probe:
        _, weights = layer(x, x, x, key_padding_mask=padding, attn_mask=mask, average_attn_weights=False)
    for image in range(3):
        rows = probe.captured("network", image).rows(torch.arange(5))
        assert torch.allclose(rows, weights[image], atol=1e-5)
    assert np.isfinite(probe.summary()[0].entropy).all()


def test_a_compiled_network_runs_uncompiled_and_the_probe_says_so():
    torch.manual_seed(0)
    vit = Vit().eval()
    compiled = torch.compile(vit, backend="eager")
    image = torch.randn(1, 1, 64, 48)
    with torch.no_grad():
        expected = vit(image)[0]
        with pytest.warns(UserWarning, match="uncompiled"):
            probe = AttentionProbe(compiled).__enter__()
        given = compiled(image)[0]
        probe.__exit__(None, None, None)
    assert torch.allclose(given, expected, atol=1e-5)
    assert [site.name.removeprefix("_orig_mod.") for site in probe.sites][1] == "plain"


def test_another_threads_image_is_not_mixed_in(small_sam):
    import threading

    other = np.ones((128, 128), np.float32)
    with AttentionProbe(small_sam) as probe:
        small_sam.encode(IMAGE)
        before = probe.rows("encoder.1", [5])
        thread = threading.Thread(target=lambda: small_sam.encode(other))
        thread.start()
        thread.join()
        assert probe.site("encoder.1").query_grid.placement.native_shape == IMAGE.shape
        assert torch.equal(probe.rows("encoder.1", [5]), before)
