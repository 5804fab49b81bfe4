"""UNETR and SwinUNETR as automatic models: equal to MONAI's networks, any window, published names, the right side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from local_attention import assert_heatmaps_peak_at, make_local
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unetr import UNETR
from safetensors.torch import load_file
from small_models import window_card

from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.errors import UnreadableWeights, UnsupportedModel, UnsupportedVolume
from napari_medtransformer.models import swin_unetr, unetr
from napari_medtransformer.models.card import BUNDLED, LabelInfo
from napari_medtransformer.models.compact import CompactConfig, compact_network
from napari_medtransformer.models.registry import find_card, load_model
from napari_medtransformer.models.scaling import FixedRange, ZScore
from napari_medtransformer.models.weights import guess_family, load_state

CPU, FLOAT = torch.device("cpu"), torch.float32
FAMILY = {unetr: "unetr", swin_unetr: "swin-unetr"}
LABELS = (LabelInfo(1, "a", (1, 0, 0)), LabelInfo(2, "b", (0, 1, 0)))


def seen_by_monai(network: torch.nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """MONAI's order: (x, y, z) growing to Right, Anterior, Superior; ours (z, y, x) to Superior, Posterior, Left."""
    with torch.inference_mode():
        return network(windows.permute(0, 1, 4, 3, 2).flip((2, 3))).flip((2, 3)).permute(0, 1, 4, 3, 2)


@pytest.fixture(scope="module")
def monai_unetr() -> UNETR:
    torch.manual_seed(0)
    return UNETR(1, 3, (32, 32, 48), feature_size=4, proj_type="perceptron", norm_name="instance").eval()


@pytest.fixture(scope="module")
def monai_swin() -> SwinUNETR:
    torch.manual_seed(0)
    return SwinUNETR(1, 3, feature_size=12).eval()


def test_a_published_unetr_segments_as_in_monai_with_every_weight_turned(monai_unetr: UNETR) -> None:
    # as published: no layers of newer releases, a class token of older ones
    weights = {k: v for k, v in monai_unetr.state_dict().items() if "norm_cross_attn" not in k}
    weights["vit.patch_embedding.cls_token"] = torch.zeros(1, 1, 768)
    model = unetr.build(window_card("unetr", "monai-4", (48, 32, 32)), weights, seed=0, device=CPU, dtype=FLOAT)
    windows = torch.randn(1, 1, 48, 32, 32, generator=torch.Generator().manual_seed(1))
    wanted = seen_by_monai(monai_unetr, windows)
    # the sums of twelve float32 blocks in another order
    assert (model.logits(windows) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert len(model.attention_sites()) == 12


def test_a_published_swin_unetr_segments_as_in_monai(monai_swin: SwinUNETR) -> None:
    weights = {k.replace("mlp.linear1", "mlp.fc1"): v for k, v in monai_swin.state_dict().items()}
    model = swin_unetr.build(
        window_card("swin-unetr", "monai-12-ras", (32, 64, 32)), weights, seed=0, device=CPU, dtype=FLOAT
    )
    windows = torch.randn(1, 1, 32, 64, 32, generator=torch.Generator().manual_seed(1))
    wanted = seen_by_monai(monai_swin, windows)
    assert (model.logits(windows) - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(
    ("module", "architecture", "side"),
    [(swin_unetr, "monai-12-ras", 32), (unetr, "monai-4", 16), (unetr, "compact", 8), (swin_unetr, "compact", 8)],
)
def test_a_window_of_a_single_last_token_is_refused_in_words(module, architecture: str, side: int) -> None:
    model = module.build(window_card(FAMILY[module], architecture, (64, 64, 64)), None, seed=0, device=CPU, dtype=FLOAT)
    with pytest.raises(UnsupportedVolume, match=f"more than {side} voxels"):
        model.logits(torch.zeros(1, 1, side, side, side))


@pytest.mark.parametrize("name", ["swin-unetr-btcv", "unetr-btcv"])
def test_cards_of_published_models_tell_thirteen_organs_and_the_hounsfield_range(name: str) -> None:
    known = find_card(name)
    assert [label.value for label in known.labels] == list(range(1, 14))
    assert known.labels[5].name == "liver"
    assert known.input.spacing_mm == (2.0, 1.5, 1.5)
    scale = FixedRange(*known.input.clip).learned(np.zeros((1, 1, 1)))
    np.testing.assert_allclose(scale(np.array([[[-1000, -175, 37.5, 250, 3000]]])), [[[[0, 0, 0.5, 1, 1]]]])


@pytest.fixture
def encoder_file(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint as model_swinvit.pt names its tensors: the encoder, its last norm and pre-training's heads."""
    torch.manual_seed(3)
    state = SwinUNETR(1, 3, feature_size=12).swinViT.state_dict()
    renamed = {f"module.{k.replace('linear1', 'fc1').replace('linear2', 'fc2')}": v for k, v in state.items()}
    for head in ("norm", "convTrans3d", "rotation_head", "contrastive_head"):
        renamed |= {f"module.{head}.{part}": torch.randn(4) for part in ("weight", "bias")}
    torch.save({"epoch": 100, "state_dict": renamed}, tmp_path / "model_swinvit.pt")
    return tmp_path / "model_swinvit.pt", renamed


def test_the_self_supervised_encoder_is_loaded_as_monai_loads_it_and_said_to_be_no_more(encoder_file) -> None:
    path, named = encoder_file
    weights = load_state(path)
    assert "self-supervised" in guess_family(weights)
    with pytest.warns(UserWarning, match="encoder alone"):
        model = swin_unetr.build(
            window_card("swin-unetr", "monai-12-ras", (32, 32, 64)), weights, seed=5, device=CPU, dtype=FLOAT
        )
    theirs = SwinUNETR(1, 3, feature_size=12)
    theirs.load_from({"state_dict": named})
    ours = model.network.state_dict()
    for name, value in theirs.state_dict().items():
        if name.startswith("swinViT."):
            assert torch.equal(ours[name], value), name
    # the rest follows the seed
    drawn = swin_unetr.build(
        window_card("swin-unetr", "monai-12-ras", (32, 32, 64)), None, seed=5, device=CPU, dtype=FLOAT
    )
    assert torch.equal(ours["out.conv.conv.weight"], drawn.network.state_dict()["out.conv.conv.weight"])
    assert len(model.attention_sites()) == 8
    del weights["layers2.0.blocks.1.norm2.bias"]
    with pytest.raises(UnreadableWeights, match=r"1 missing \(swinViT.layers2.0.blocks.1.norm2.bias"):
        swin_unetr.build(
            window_card("swin-unetr", "monai-12-ras", (32, 32, 64)), weights, seed=5, device=CPU, dtype=FLOAT
        )


@pytest.mark.parametrize(
    ("module", "architecture", "sites"),
    [(unetr, "monai-4", 12), (unetr, "compact", 8), (swin_unetr, "monai-24", 8), (swin_unetr, "compact", 6)],
)
def test_heatmaps_of_local_heads_are_highest_at_the_voxel_that_asks(module, architecture: str, sites: int) -> None:
    size = (32, 64, 48) if module is unetr or architecture == "compact" else (32, 64, 32)
    model = module.build(window_card(FAMILY[module], architecture, size), None, seed=0, device=CPU, dtype=FLOAT)
    make_local(model, size)
    with AttentionProbe(model) as probe:
        for listener in model.on_encode:
            listener(InputPlacement(size, size, size))
        model.logits(torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0)))
    assert len(probe.sites) == sites
    for query in ((5, 50, 20), (24, 8, 31)):
        assert_heatmaps_peak_at(probe, query)


def test_weights_of_another_network_are_refused_by_name(monai_unetr: UNETR) -> None:
    with pytest.raises(UnreadableWeights, match="UNETR"):
        swin_unetr.build(
            window_card("swin-unetr", "monai-12", (32, 32, 32)),
            monai_unetr.state_dict(),
            seed=0,
            device=CPU,
            dtype=FLOAT,
        )


@pytest.mark.parametrize(("build", "family"), [(unetr.build, "unetr"), (swin_unetr.build, "swin-unetr")])
def test_an_unknown_architecture_is_refused(build, family: str) -> None:
    with pytest.raises(UnsupportedModel, match="expected compact"):
        build(window_card(family, "giant", (32, 32, 32)), None, seed=0, device=CPU, dtype=FLOAT)


@pytest.mark.parametrize("kind", ["unetr", "swin-unetr"])
def test_a_compact_network_takes_windows_of_other_sizes(kind) -> None:
    module = unetr if kind == "unetr" else swin_unetr
    model = module.build(window_card(kind, "compact", (16, 24, 16)), None, seed=0, device=CPU, dtype=FLOAT)
    assert model.window_multiple == (8, 8, 8)
    for shape in ((16, 24, 16), (24, 16, 32)):
        assert model.logits(torch.zeros(2, 1, *shape)).shape == (2, 3, *shape)
    with pytest.raises(UnsupportedVolume, match="multiples of 8"):
        model.logits(torch.zeros(1, 1, 16, 20, 16))


def test_interpolated_positions_are_the_trained_ones_on_the_trained_window() -> None:
    network = compact_network(CompactConfig("unetr", 3, (16, 24, 16)), 0)
    embedding = network.vit.patch_embedding
    windows = torch.randn(1, 1, 16, 24, 16, generator=torch.Generator().manual_seed(0))
    tokens = embedding.patch_embeddings(windows).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(windows), tokens + embedding.position_embeddings)
    # twice as many tokens along y: linearly between the trained ones, by token centres
    blank = torch.zeros(1, 1, 16, 48, 16)
    found = embedding(blank) - embedding.patch_embeddings(blank).flatten(2).transpose(1, 2)
    trained = embedding.position_embeddings.detach().numpy().reshape(2, 3, 2, -1)
    at = np.clip((np.arange(6) + 0.5) / 2 - 0.5, 0, 2)
    low = np.floor(at).astype(int)
    share = (at - low)[None, :, None, None]
    wanted = trained[:, low] * (1 - share) + trained[:, np.minimum(low + 1, 2)] * share
    np.testing.assert_allclose(found.detach().numpy().reshape(wanted.shape), wanted, atol=1e-5)


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (compact_network(CompactConfig("swin-unetr", 3, (16, 16, 16)), s) for s in (1, 1, 2))
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.encoder1.layer.conv1.conv.weight, other.encoder1.layer.conv1.conv.weight)


def test_windows_of_attention_tile_the_grids_of_every_stage() -> None:
    for window in ((40, 56, 40), (64, 64, 64), (96, 80, 48)):
        tiles = CompactConfig("swin-unetr", 2, window).attention_window
        for n, tile in zip(window, tiles, strict=True):
            assert tile <= 8
            assert all(n // halving % tile == 0 for halving in (2, 4, 8))


def test_a_z_score_is_the_same_whatever_part_it_is_applied_to() -> None:
    data = np.random.default_rng(0).normal(500, 120, (8, 9, 10)).astype(np.float32)
    scale = ZScore().learned(data)
    whole = scale(data)
    assert whole.shape == (1, 8, 9, 10)
    assert abs(float(whole.mean())) < 1e-3
    assert abs(float(whole.std()) - 1) < 1e-3
    np.testing.assert_array_equal(scale(data[2:4, :, 3:]), whole[:, 2:4, :, 3:])
    constant = ZScore().learned(np.full((3, 3, 3), 7))(np.full((3, 3, 3), 7))
    np.testing.assert_array_equal(constant, 0)


@pytest.mark.parametrize("name", ["medt-hippocampus", "medt-hippocampus-unetr"])
def test_bundled_hippocampus_models_are_small_and_load(name: str) -> None:
    known = find_card(name)
    path = BUNDLED / known.weights
    assert path.stat().st_size < 20_000_000
    assert {value.dtype for value in load_file(path).values()} <= {torch.float16, torch.int64}
    assert path.with_suffix(".md").read_text(encoding="utf-8").startswith(f"# {name}")
    model = load_model(name, device="cpu")
    assert model.attention_sites()


def test_a_card_of_several_images_at_once_is_refused() -> None:
    card = window_card("unetr", "monai-4", (48, 32, 32))
    card = replace(card, input=replace(card.input, channels=4))
    with pytest.raises(UnsupportedModel, match="takes 4 images at once"):
        unetr.build(card, None, seed=0, device=CPU, dtype=FLOAT)
