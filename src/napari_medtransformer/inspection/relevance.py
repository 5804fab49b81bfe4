"""A second opinion on where a mask comes from: attention weighted by the mask's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.heatmap import Heatmap, stitch_heatmaps
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.relevance import HeadOutputs, recorded_outputs, relevance_vector
from napari_medtransformer.attention.rollout import input_grid
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import InvalidPrompt, UnsupportedModel
from napari_medtransformer.given import record
from napari_medtransformer.inspection.inspect import SliceInspection, check_prompts
from napari_medtransformer.inspection.queries import encoder_sites
from napari_medtransformer.inspection.windows import Start, VolumeInspection
from napari_medtransformer.models.base import Prompts

RELEVANCE = "relevance"


def mask_relevance(inspection: SliceInspection, prompts: Prompts) -> Heatmap:
    """Which places the encoder drew on for an object's mask, (1, *grid), summing to 1: gradient times attention.

    What is differentiated is the mean logit over the predicted mask; what asks are the mask's tokens. One forward and
    one backward pass. Raises UnsupportedModel for a model without gradients, InvalidPrompt for an empty mask.
    Chefer et al. 2021.
    """
    record(inspection, SliceInspection, "a SliceInspection, as inspect_slice gives one")
    check_prompts(prompts)
    names = [site.name for site in encoder_sites(inspection)]
    model = inspection.model
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        AttentionProbe(model, names) as probe,
        recorded_outputs(model, names) as outputs,
    ):
        logits = model.differentiable_logits(inspection.image, inspection.spacing_mm, prompts)
        best = int(np.argmax(model.decode(inspection.embedding, prompts).scores))
        mask = logits[best].detach() > 0
        if not bool(mask.any()):
            raise InvalidPrompt("the mask of these prompts is empty, so nothing is relevant for it; move the prompt.")
        parameters = [p for p in model.network.parameters() if p.requires_grad]
        logits[best][mask].mean().backward()
        for parameter in parameters:
            parameter.grad = None
    layers = [(probe.captured(name), outputs[name]) for name in names]
    start = layers[-1][0].site.query_grid.pixels_per_token(mask.cpu().numpy())
    return _as_heatmap(layers, start)


def _as_heatmap(layers: Sequence[tuple[CapturedSite, HeadOutputs]], start: torch.Tensor) -> Heatmap:
    """(1, *grid), summing to 1: the relevance for tokens that ask, (tokens of the last layer,)."""
    found = relevance_vector(layers, start)
    total = float(found.sum())
    values = (found / total if total > 0 else found)[None]
    return Heatmap.over(input_grid(layers[0][0]), values, torch.zeros(1), site=RELEVANCE, query=None)


def label_relevance(inspection: VolumeInspection, label: int | None = None) -> Heatmap:
    """Which places an automatic model drew on for a label in the windows that ran, (1, *grid), summing to 1.

    label: a value of the card's labels; None for what the model calls the voxel that was inspected. What is
    differentiated is the label's mean logit where it wins; what asks are the tokens there; windows count by how many of
    its voxels they hold. One forward and one backward pass per window. Raises UnsupportedModel for a model without
    gradients, InvalidPrompt for a label that it does not have or that is nowhere in these windows.
    """
    card = inspection.model.card
    known = {one.value: number for number, one in enumerate(card.labels, start=1)}
    if label is None:
        label = next((one.value for one in card.labels if one.name == inspection.label), None)
    if label is None:
        raise InvalidPrompt(f"{card.name} calls this voxel background; click on a structure that it names.")
    if label not in known:
        raise InvalidPrompt(f"{card.name} has no label {label}; it has {', '.join(map(str, known))}.")
    maps, sizes = [], []
    for start in inspection.runs.starts:
        found = _window_relevance(inspection, start, known[label])
        if found is not None:
            maps.append(found[0])
            sizes.append(found[1])
    if not maps:
        raise InvalidPrompt(f"{card.name} finds no voxel of label {label} in these windows; click on the structure.")
    return stitch_heatmaps(maps, sizes)


def _window_relevance(inspection: VolumeInspection, start: Start, number: int) -> tuple[Heatmap, float] | None:
    """The relevance for class `number` in one window and its voxels there; None where it does not win."""
    model, windows = inspection.model, inspection.windows
    names = [site.name for site in encoder_sites(inspection)]
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        AttentionProbe(model, names) as probe,
        recorded_outputs(model, names) as outputs,
    ):
        for listener in model.on_encode:
            listener(windows.placement(start))
        logits = model.differentiable_logits(windows.read(start))[0]
        mask = logits.detach().argmax(0) == number
        if not bool(mask.any()):
            return None
        logits[number][mask].mean().backward()
        for parameter in model.network.parameters():
            parameter.grad = None
    layers = [(probe.captured(name), outputs[name]) for name in names]
    return _as_heatmap(layers, _tokens_of(mask, layers[-1][0].site.query_grid)), float(mask.sum())


def _tokens_of(mask: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """How many voxels of a window, bool (*window), each of its tokens holds: (tokens,)."""
    if grid.layout.patch is None:
        raise UnsupportedModel("the last layer's tokens have no place in the window.")
    places = mask.nonzero().cpu()
    sides = torch.tensor(grid.layout.patch), torch.tensor(grid.shape)
    index = torch.minimum(places // sides[0], sides[1] - 1)
    flat = torch.from_numpy(np.ravel_multi_index(tuple(index.T.numpy()), grid.shape))
    return torch.bincount(grid.prefix + flat, minlength=grid.n_tokens).float()
