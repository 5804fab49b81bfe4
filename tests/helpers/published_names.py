"""The names of the tensors in published checkpoints, from the authors' modules."""

from __future__ import annotations


def meta_names(depth, global_width, hyper=4):
    """The tensor names of Meta's checkpoints, from its published modules."""
    names = ["image_encoder.pos_embed", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    pairs = ["image_encoder.patch_embed.proj"]
    for i in range(depth):
        block = f"image_encoder.blocks.{i}"
        names += [f"{block}.attn.rel_pos_h", f"{block}.attn.rel_pos_w"]
        pairs += [f"{block}.{part}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.lin1", "mlp.lin2")]
    names += ["image_encoder.neck.0.weight", "image_encoder.neck.2.weight"]
    pairs += ["image_encoder.neck.1", "image_encoder.neck.3"]
    names += [f"prompt_encoder.point_embeddings.{i}.weight" for i in range(4)]
    names += ["prompt_encoder.not_a_point_embed.weight", "prompt_encoder.no_mask_embed.weight"]
    pairs += [f"prompt_encoder.mask_downscaling.{i}" for i in (0, 1, 3, 4, 6)]
    projections = [f"{side}_proj" for side in ("q", "k", "v", "out")]
    for i in range(2):
        layer = f"mask_decoder.transformer.layers.{i}"
        for module in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            pairs += [f"{layer}.{module}.{p}" for p in projections]
        pairs += [f"{layer}.norm{n}" for n in (1, 2, 3, 4)] + [f"{layer}.mlp.lin1", f"{layer}.mlp.lin2"]
    pairs += [f"mask_decoder.transformer.final_attn_token_to_image.{p}" for p in projections]
    pairs += ["mask_decoder.transformer.norm_final_attn"]
    names += ["mask_decoder.iou_token.weight", "mask_decoder.mask_tokens.weight"]
    pairs += [f"mask_decoder.output_upscaling.{i}" for i in (0, 1, 3)]
    pairs += [f"mask_decoder.output_hypernetworks_mlps.{i}.layers.{j}" for i in range(hyper) for j in range(3)]
    pairs += [f"mask_decoder.iou_prediction_head.layers.{j}" for j in range(3)]
    return names + [f"{name}.{part}" for name in pairs for part in ("weight", "bias")]
