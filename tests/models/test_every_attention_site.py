"""Every attention site of every family: the kernel's output, the probe's rows and the window maps, all written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import ViT
from monai.networks.nets.swin_unetr import window_partition, window_reverse
from small_models import (
    Volumetric,
    randomised,
    segformer_card,
    small_detr,
    small_sam,
    small_sam2,
    small_sam_hq,
    small_sam_med2d,
    small_sam_med3d,
    upernet_card,
    upernet_config,
    window_card,
)
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import UperNetForSemanticSegmentation

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.attention.bias import Bias, DecomposedBias, DenseBias, KeyTermsBias, WindowBias
from napari_medtransformer.attention.fused import attend
from napari_medtransformer.attention.interception import ModulePath
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.policy import AttentionPolicy, use_policy
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.sites import SiteSpec
from napari_medtransformer.models import (
    load_model,
    monai_attention,
    swin_unetr,
    transformers_attention,
    unetr,
)
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.segformer import build as build_segformer
from napari_medtransformer.models.swin_attention import use_fused_attention as fuse_swin
from napari_medtransformer.models.upernet import UperNetModel
from napari_medtransformer.models.volume_model import VolumePrompts

CPU, FLOAT = torch.device("cpu"), torch.float32
IMAGE = np.random.default_rng(0).random((50, 77), dtype=np.float32)
CLICK = Prompts(np.array([[20.0, 30.0], [40.0, 60.0]], np.float32), np.array([1, 0]))


@dataclass
class Case:
    """What is probed (a model or a plain network), its sites, and one run of it."""

    probed: Any
    specs: list[SiteSpec]
    run: Callable[[], object]

    @property
    def network(self) -> nn.Module:
        return self.probed if isinstance(self.probed, nn.Module) else self.probed.network


def clicked(model):
    return Case(model, model.attention_sites(), lambda: model.decode(model.encode(IMAGE), CLICK))


def whole(model, *shape):
    """An automatic model on one window or slice; the window is the image."""
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    place = InputPlacement(shape[1:], shape[1:], shape[1:])

    def run():
        for listener in model.on_encode:
            listener(place)
        return model.logits(images)

    return Case(model, model.attention_sites(), run)


def plain(network, sites, *shape):
    """A network that is no model of this package."""
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    return Case(network, sites, lambda: network(images))


def sam_med3d():
    model, centre = small_sam_med3d(), (15, 25, 30)
    volume = np.random.default_rng(0).normal(100, 40, size=(30, 50, 60)).astype(np.float32)
    prompts = VolumePrompts(np.array([centre], np.float32), np.array([1]))

    def run():
        return model.decode(model.encode(volume, (3.0, 2.0, 1.5), centre, "MR"), prompts)

    return Case(model, model.attention_sites(), run)


def segformer():
    return whole(build_segformer(segformer_card(), None, seed=0, device=CPU, dtype=FLOAT), 3, 96, 128)


def upernet():
    network = fuse_swin(draw_weights(UperNetForSemanticSegmentation(upernet_config()), 0))
    return whole(UperNetModel(upernet_card(), network, CPU, FLOAT), 3, 100, 128)


def windows(module, family, architecture, *size):
    model = module.build(window_card(family, architecture, size), None, seed=0, device=CPU, dtype=FLOAT)
    return whole(model, 1, *size)


def class_token():
    torch.manual_seed(0)
    vit = monai_attention.use_fused_attention(ViT(1, (32, 48), 8, 24, 32, 2, 4, spatial_dims=2, classification=True))
    return plain(vit.eval(), monai_attention.attention_sites(vit), 1, 32, 48)


def positions_3d():
    torch.manual_seed(0)
    network = monai_attention.use_fused_attention(randomised(Volumetric(4)))
    return plain(network, network.sites(), 1, 32, 32, 32)


def detection(deformable):
    network = small_detr(deformable=deformable)
    return plain(network, transformers_attention.attention_sites(network), 3, 96, 160)


FAMILIES: dict[str, Callable[[], Case]] = {
    "click": lambda: clicked(load_model("medt-click-tiny", device="cpu")),
    "sam": lambda: clicked(small_sam()),
    "sam-hq": lambda: clicked(small_sam_hq()),
    "sam-med2d": lambda: clicked(small_sam_med2d()),
    "sam-2": lambda: clicked(small_sam2()),
    "sam-med3d": sam_med3d,
    "segformer": segformer,
    "upernet": upernet,
    "unetr": lambda: windows(unetr, "unetr", "monai-4", 32, 32, 48),
    "unetr, compact": lambda: windows(unetr, "unetr", "compact", 24, 32, 40),
    "swin-unetr": lambda: windows(swin_unetr, "swin-unetr", "monai-12", 32, 64, 32),
    "swin-unetr, turned": lambda: windows(swin_unetr, "swin-unetr", "monai-12-ras", 32, 32, 64),
    "swin-unetr, compact": lambda: windows(swin_unetr, "swin-unetr", "compact", 24, 40, 32),
    "vit, class token": class_token,
    "vit, positions along three axes": positions_3d,
    "detr": lambda: detection(False),
    "deformable detr": lambda: detection(True),
}


def written_out(bias: Bias | None, q: torch.Tensor, keys: int) -> torch.Tensor:
    """What is added to the scores, every number of it, in float64: (B, heads, N, K) or what broadcasts to it."""
    q = q.double()
    if bias is None:
        return torch.zeros((), dtype=torch.float64)
    if isinstance(bias, DecomposedBias):
        total = torch.zeros((), dtype=torch.float64)
        queries = torch.unravel_index(torch.arange(q.shape[2]), bias.query_shape)
        places = torch.unravel_index(torch.arange(keys), bias.key_shape)
        for table, here, there in zip(bias.tables, queries, places, strict=True):
            total = total + torch.einsum("bhnd,nkd->bhnk", q, table.double()[here])[..., there]
        return total
    if isinstance(bias, WindowBias):
        total = bias.table.double()[None]
        if bias.regions is not None:
            regions = bias.regions.repeat(q.shape[0] // len(bias.regions), 1)
            total = total + bias.penalty * (regions[:, :, None] != regions[:, None, :]).double()[:, None]
        return total
    if isinstance(bias, KeyTermsBias):
        total = torch.zeros((), dtype=torch.float64)
        places = torch.unravel_index(torch.arange(keys), bias.key_shape)
        for (values, axes), run in zip(bias.terms, bias.runs or (1,) * len(bias.terms), strict=True):
            rows = values.double()[:, :, torch.arange(q.shape[2]) // run % values.shape[2]]
            total = total + rows[(..., *[places[axis] for axis in axes])]
        return total
    assert isinstance(bias, DenseBias)
    if bias.mask.dtype == torch.bool:
        return torch.zeros(bias.mask.shape, dtype=torch.float64).masked_fill(~bias.mask, -torch.inf)
    return bias.mask.double()


def sdpa_fields(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    assert dropout_p == 0
    assert not is_causal
    assert not enable_gqa
    return query, key, value, None if attn_mask is None else DenseBias(attn_mask), scale


def attend_fields(q, k, v, *, bias=None, scale=None):
    return q, k, v, bias, scale


class Explicit(TorchFunctionMode):
    """Writes every attention call of some modules out: its weights, and how far the fused output is from them."""

    def __init__(self, path: ModulePath) -> None:
        super().__init__()
        self.path = path
        self.weights: dict[str, torch.Tensor] = {}
        self.absolute: dict[str, float] = {}
        self.relative: dict[str, float] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func not in (attend, F.scaled_dot_product_attention) or self.path.current is None:
            return out
        fields = attend_fields if func is attend else sdpa_fields
        q, k, v, bias, scale = fields(*args, **(kwargs or {}))
        scores = q.double() @ k.double().transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = torch.softmax(scores + written_out(bias, q, k.shape[2]), dim=-1)
        expected = weights @ v.double()
        name = self.path.current
        error = (out.double() - expected).abs().max().item()
        self.absolute[name] = max(self.absolute.get(name, 0), error / max(1, expected.abs().max().item()))
        far = ((out.double() - expected).norm() / expected.norm()).item()
        self.relative[name] = max(self.relative.get(name, 0), far)
        self.weights[name] = weights
        return out


def run_written_out(case: Case) -> tuple[Explicit, AttentionProbe]:
    path = ModulePath()
    modules = {spec.name: case.network.get_submodule(spec.module) for spec in case.specs}
    sites = case.specs if isinstance(case.probed, nn.Module) else None
    with torch.no_grad(), path.follow(modules), Explicit(path) as explicit, AttentionProbe(case.probed, sites) as probe:
        case.run()
    assert list(explicit.weights) == [spec.name for spec in case.specs]
    return explicit, probe


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A family's network after one run: its case, what was written out, and the probe."""
    case = FAMILIES[request.param]()
    return case, *run_written_out(case)


def test_the_fused_output_of_every_site_is_the_explicit_one(family):
    _, explicit, _ = family
    # rounding of float32, relative to the output's size where that is larger than one
    assert max(explicit.absolute.values()) < 1e-5, explicit.absolute


def test_probed_rows_of_every_site_are_the_explicit_softmax(family):
    _, explicit, probe = family
    for site in probe.sites:
        tokens = torch.arange(site.query_grid.n_tokens)
        window, place = site.query_grid.window_of_token.unbind(1)
        rows = probe.rows(site, tokens).transpose(0, 1).double()
        assert (rows - explicit.weights[site.name][window, :, place]).abs().max() < 1e-5, site.name


def test_entropy_and_distance_of_every_site_are_those_of_the_explicit_softmax(family):
    _, explicit, probe = family
    for site in probe.sites:
        window, place = site.query_grid.window_of_token.unbind(1)
        weights = explicit.weights[site.name][window, :, place]
        entropy, distance = probe.entropy_and_distance(site)
        assert (entropy - torch.special.entr(weights).sum(-1).T).abs().max() < 1e-5, site.name
        if not (site.query_grid.has_place and site.key_grid.has_place):
            assert distance.isnan().all()
            continue
        here, there = (centres(grid) for grid in (site.query_grid, site.key_grid))
        keys = probe.keys(site, tokens := torch.arange(site.query_grid.n_tokens))
        known = keys >= site.key_grid.prefix
        apart = (here[tokens][:, None] - there[keys.clamp(min=0)]).norm(dim=-1).nan_to_num()
        mass = weights * known[:, None]
        expected = ((mass * apart[:, None]).sum(-1) / mass.sum(-1)).T
        expected[:, : site.query_grid.prefix] = torch.nan
        assert torch.allclose(distance.double(), expected, rtol=1e-5, atol=1e-5, equal_nan=True), site.name


def centres(grid):
    """(tokens, axes) float64 centres in native pixels, nan for prefix tokens."""
    places = [grid.native_centre(token) for token in range(grid.prefix, grid.n_tokens)]
    nowhere = [(math.nan,) * len(places[0])] * grid.prefix
    return torch.tensor(nowhere + places, dtype=torch.float64)


def test_window_maps_are_stitched_as_monais_own_partition_says(family):
    _, explicit, probe = family
    generator = np.random.default_rng(0)
    for site in (site for site in probe.sites if site.query_grid.window is not None):
        if site.query_grid.layout.turn is not None:
            continue  # its windows lie in the network's frame: test_turned_models.py
        queries, keys = site.query_grid, site.key_grid
        for token in generator.integers(queries.n_tokens, size=5).tolist():
            # the query as a mark on an image, which is padded, rolled and cut by MONAI
            marks = [torch.zeros(-(-n // w) * w) for n, w in zip(queries.shape, queries.window, strict=True)]
            for axis, (index, shift) in enumerate(zip(queries.grid_index(token), queries.shift, strict=True)):
                marks[axis][index - shift] = 1
            letters = "zyx"[-len(marks) :]
            image = torch.einsum(f"{','.join(letters)}->{letters}", *marks)[None, ..., None]
            entry, place = window_partition(image, queries.window)[..., 0].nonzero()[0].tolist()
            # its row alone in all windows, put together and rolled back by MONAI
            padded = [-(-n // w) * w for n, w in zip(keys.shape, keys.window, strict=True)]
            rows = torch.zeros(math.prod(padded) // math.prod(keys.window), math.prod(keys.window), site.heads)
            rows[entry] = explicit.weights[site.name][entry, :, place].T.float()
            canvas = window_reverse(rows.reshape(-1, *keys.window, site.heads), keys.window, [1, *padded])
            canvas = torch.roll(canvas[0], keys.shift, dims=tuple(range(len(padded)))).movedim(-1, 0)
            expected = canvas[(slice(None), *[slice(n) for n in keys.shape])]
            assert np.allclose(probe.heatmap(site, token).values, expected.numpy(), atol=1e-5), site.name


@dataclass
class Wrapped:
    """A plain network as far as ablation asks for a model."""

    network: nn.Module
    specs: list[SiteSpec]

    def attention_sites(self):
        return self.specs


# what networks call the linear layer behind their heads
PROJECTIONS = {"proj", "out_proj", "o_proj", "out", "dense"}


def numbers(output: Any) -> list[torch.Tensor]:
    """All tensors and arrays of an output, whatever holds them."""
    if isinstance(output, torch.Tensor | np.ndarray):
        return [torch.as_tensor(output)]
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in numbers(part)]
    if isinstance(output, dict) or hasattr(output, "__dict__"):
        fields = output if isinstance(output, dict) else vars(output)
        return [tensor for part in fields.values() for tensor in numbers(part)]
    return []


@torch.no_grad()
def test_all_heads_off_is_the_branch_removed_and_none_off_changes_no_bit(family):
    case, _, _ = family
    model = Wrapped(case.probed, case.specs) if isinstance(case.probed, nn.Module) else case.probed
    before = numbers(case.run())
    assert before
    with ablated_heads(model, {}):
        assert all(torch.equal(a, b) for a, b in zip(numbers(case.run()), before, strict=True))
    for spec in (case.specs[0], case.specs[-1]):
        with ablated_heads(model, {spec.name: "all"}):
            ablated = numbers(case.run())
        module = case.network.get_submodule(spec.module)
        (projection,) = (m for path, m in module.named_modules() if path.rsplit(".", 1)[-1] in PROJECTIONS)
        kept = {name: parameter.clone() for name, parameter in projection.named_parameters()}
        for parameter in projection.parameters():
            parameter.zero_()
        removed = numbers(case.run())
        projection.load_state_dict(kept)
        assert all(torch.equal(a, b) for a, b in zip(ablated, removed, strict=True)), spec.name
        assert not all(torch.equal(a, b) for a, b in zip(ablated, before, strict=True)), spec.name


@pytest.mark.parametrize("kernel", ["low-rank", "blockwise"])
@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_stays_within_two_hundredths_at_every_site(name, kernel):
    case = FAMILIES[name]()
    if not isinstance(case.probed, nn.Module):
        case.probed.dtype = torch.bfloat16
    autocast = torch.autocast("cpu", torch.bfloat16) if isinstance(case.probed, nn.Module) else nullcontext()
    with autocast, use_policy(AttentionPolicy(torch.bfloat16, kernel)):
        explicit, probe = run_written_out(case)
    assert any("bfloat16" in probe.kernel(site) for site in probe.sites)
    assert max(explicit.relative.values()) < 2e-2, explicit.relative
