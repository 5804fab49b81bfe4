"""A second opinion on where a mask comes from: attention weighted by the mask's gradient."""

from __future__ import annotations

import numpy as np
import torch

from napari_medtransformer.attention.heatmap import Heatmap
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.relevance import recorded_outputs, relevance_vector
from napari_medtransformer.errors import InvalidPrompt
from napari_medtransformer.inspection.inspect import SliceInspection
from napari_medtransformer.inspection.queries import encoder_sites
from napari_medtransformer.models.base import Prompts

RELEVANCE = "relevance"


def mask_relevance(inspection: SliceInspection, prompts: Prompts) -> Heatmap:
    """Which places the encoder drew on for an object's mask, (1, *grid), summing to 1: gradient times attention.

    What is differentiated is the mean logit over the predicted mask; what asks are the mask's tokens. One forward and
    one backward pass. Raises UnsupportedModel for a model without gradients, InvalidPrompt for an empty mask.
    Chefer et al. 2021.
    """
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
    grid = layers[-1][0].site.query_grid
    start = grid.pixels_per_token(mask.cpu().numpy())
    found = relevance_vector(layers, start)
    total = float(found.sum())
    values = (found / total if total > 0 else found)[None]
    return Heatmap.over(grid, values, torch.zeros(1), site=RELEVANCE, query=None)
