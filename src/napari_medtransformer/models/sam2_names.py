"""Names of the tensors of SAM 2.1 and MedSAM2: Meta's published ones and those of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
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
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^vision_encoder\.backbone\.patch_embed\.proj\.", "vision_encoder.backbone.patch_embed.projection."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\.out_proj\.", ".o_proj."),
    *SAM_DECODER,
    (r"^no_mem_embed$", "no_memory_embedding"),
)
# perceptrons, of the encoder's blocks too
_PERCEPTRON = re.compile(
    r"^((?:image_encoder\.trunk\.blocks\.\d+\.mlp)|(?:sam_mask_decoder\.(?:transformer\.layers\.\d+\.mlp|"
    r"output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)))\.layers\.(\d+)\."
)
_POINT = re.compile(r"^sam_prompt_encoder\.point_embeddings\.(\d+)\.weight$")
_POINTS = "prompt_encoder.point_embed.weight"
# what only the memory between the frames of a video needs, under both namings
_VIDEO = re.compile(
    r"^(memory_(attention|encoder|temporal_positional_encoding)|maskmem_tpos_enc|no_mem_pos_enc|no_obj_|mask_downsample|"
    r"obj_ptr_|no_memory_positional_encoding|no_object_pointer|object_pointer_proj|temporal_positional_encoding_|"
    r"occlusion_spatial_embedding_parameter)"
)
# the memory's tensors in Meta's names
_MEMORY_RENAMES: Renames = (
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.layers\.0\.", "object_pointer_proj.proj_in."),
    (r"^obj_ptr_proj\.layers\.1\.", "object_pointer_proj.layers.0."),
    (r"^obj_ptr_proj\.layers\.2\.", "object_pointer_proj.proj_out."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    (r"\.out_proj\.", ".o_proj."),
)
# four times convolution, norm and activation, then a last convolution: 0, 1, 3, 4, … 12
_DOWNSAMPLER = re.compile(r"^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.")
_DOWNSAMPLER_STEPS = 4


def transformers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of SAM 2.1's image part under transformers' names, whichever of the two namings it comes in.

    Tensors that only the memory of videos needs are left out.
    """
    needed = {name: value for name, value in state.items() if not _VIDEO.match(name)}
    named = needed
    if any(name.startswith("sam_mask_decoder.") for name in needed):
        depths = perceptron_depths(needed, _PERCEPTRON)
        points = sorted((int(part[1]), name) for name in needed if (part := _POINT.match(name)))
        named = {_rename(name, depths): value for name, value in needed.items() if not _POINT.match(name)}
        if points:
            named[_POINTS] = torch.cat([needed[name] for _, name in points])
    share_frequencies(named)
    return named


def memory_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint's memory under transformers' names, from either naming; empty if it has none."""
    return {_rename_memory(name): value for name, value in state.items() if _VIDEO.match(name)}


def _rename_memory(name: str) -> str:
    if part := _DOWNSAMPLER.match(name):
        step, place = divmod(int(part[1]), 3)
        layer = "final_conv" if step == _DOWNSAMPLER_STEPS else f"layers.{step}.{('conv', 'norm')[place]}"
        name = f"memory_encoder.mask_downsampler.{layer}.{name[part.end() :]}"
    return renamed(name, _MEMORY_RENAMES)


def _rename(name: str, depths: Mapping[str, int]) -> str:
    if part := _PERCEPTRON.match(name):
        name = f"{part[1]}.{perceptron_layer(int(part[2]), depths[part[1]])}.{name[part.end() :]}"
    return renamed(name, _RENAMES)
