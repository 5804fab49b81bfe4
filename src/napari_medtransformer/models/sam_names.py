"""Names of the tensors of SAM, SAM-HQ and SAM-Med2D: the published ones and those of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# applied in this order, each to what the one before left
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^vision_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^vision_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^vision_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^vision_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^vision_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (
        r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
        "prompt_encoder.shared_embedding.positional_embedding",
    ),
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
# perceptrons of the decoder: their first and last layers have names of their own in transformers
_PERCEPTRON = re.compile(
    r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|hf_mlp))\.layers\.(\d+)\."
)
# constants of Meta's preprocessing that some checkpoints carry
_NOT_PARAMETERS = frozenset({"pixel_mean", "pixel_std"})
_SHARED = ("prompt_encoder.shared_embedding.positional_embedding", "shared_image_embedding.positional_embedding")


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of SAM or its kin under transformers' names, whichever of the two namings it comes in."""
    named = dict(state)
    if any(name.startswith("image_encoder.") for name in state):
        depth: dict[str, int] = {}
        for name in state:
            if part := _PERCEPTRON.match(name):
                depth[part[1]] = max(depth.get(part[1], 0), int(part[2]))
        named = {_rename(name, depth): value for name, value in state.items() if name not in _NOT_PARAMETERS}
    # one matrix under two names; some files leave one out
    for here, there in (_SHARED, _SHARED[::-1]):
        if here in named:
            named.setdefault(there, named[here])
    return named


def _rename(name: str, depth: Mapping[str, int]) -> str:
    if part := _PERCEPTRON.match(name):
        layer, rest = int(part[2]), name[part.end() :]
        stem = part[1].replace("hf_mlp", "hq_mask_mlp")
        if layer == 0:
            return f"{stem}.proj_in.{rest}"
        if layer == depth[part[1]]:
            return f"{stem}.proj_out.{rest}"
        return f"{stem}.layers.{layer - 1}.{rest}"
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
