"""Names of the tensors of SAM, SAM-HQ and SAM-Med2D: the published ones and those of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from napari_medtransformer.models.renaming import (
    SAM_DECODER,
    Renames,
    perceptron_depths,
    perceptron_layer,
    renamed,
    share_frequencies,
)

_RENAMES: Renames = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^vision_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^vision_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^vision_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^vision_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^vision_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    *SAM_DECODER,
    # what SAM-HQ adds to the decoder
    (r"^mask_decoder\.hf_token\.", "mask_decoder.hq_token."),
    *(
        (rf"^mask_decoder\.{theirs}\.{index}\.", f"mask_decoder.{ours}_{layer}.")
        for theirs, ours in (
            ("compress_vit_feat", "compress_vit"),
            ("embedding_encoder", "encoder"),
            ("embedding_maskfeature", "mask"),
        )
        for index, layer in ((0, "conv1"), (1, "norm"), (3, "conv2"))
    ),
    # what SAM-Med2D adds beside each block's perceptron
    (r"^(vision_encoder\.layers\.\d+)\.Adapter\.", r"\1.mlp.adapter."),
)
# perceptrons of the decoder
_PERCEPTRON = re.compile(
    r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|hf_mlp))\.layers\.(\d+)\."
)
# constants of Meta's preprocessing that some checkpoints carry
_NOT_PARAMETERS = frozenset({"pixel_mean", "pixel_std"})


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of SAM or its kin under transformers' names, whichever of the two namings it comes in."""
    named = dict(state)
    if any(name.startswith("image_encoder.") for name in state):
        depths = perceptron_depths(state, _PERCEPTRON)
        named = {_rename(name, depths): value for name, value in state.items() if name not in _NOT_PARAMETERS}
    share_frequencies(named)
    return named


def _rename(name: str, depths: Mapping[str, int]) -> str:
    if part := _PERCEPTRON.match(name):
        stem = part[1].replace("hf_mlp", "hq_mask_mlp")
        return f"{stem}.{perceptron_layer(int(part[2]), depths[part[1]])}.{name[part.end() :]}"
    return renamed(name, _RENAMES)
