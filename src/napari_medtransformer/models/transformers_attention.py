"""Where attention happens in segmentation networks of transformers: SAM 2, SegFormer, DETR and Deformable DETR.

They call torch's fused attention by themselves when they are made with attn_implementation="sdpa".
"""

from __future__ import annotations

from typing import Any

from torch import nn

from napari_medtransformer.attention.layout import FREE_TOKENS, TokenLayout
from napari_medtransformer.attention.sites import SiteKind, SiteSpec
from napari_medtransformer.errors import UnsupportedModel
from napari_medtransformer.models.sam_family import decoder_sites

# input pixels per token of DETR's encoder: what ResNet's five halvings leave
_DETR_STRIDE = 32
# input pixels per token of SAM 2's image embedding
_SAM2_TOKEN = (16, 16)


def attention_sites(network: nn.Module) -> list[SiteSpec]:
    """The attention sites of a network of transformers, in the order in which they run.

    Encoder sites are called encoder.0, encoder.1, …, those of a decoder decoder.<layer>.<kind>. Deformable DETR's
    sampled attention has no rows: see attention.sampled. Raises UnsupportedModel for a family that is not known here.
    """
    sites: list[SiteSpec] = []
    for path, module in network.named_modules():
        find = _FAMILIES.get(type(module).__name__)
        if find is not None:
            sites += find(module, f"{path}." if path else "")
    if not sites:
        raise UnsupportedModel(f"the attention of {type(network).__name__} is not known; probe it without sites.")
    implementation = getattr(getattr(network, "config", None), "_attn_implementation", "sdpa")
    if implementation != "sdpa":
        raise UnsupportedModel(
            f"{type(network).__name__} runs {implementation} attention; make it with attn_implementation='sdpa'."
        )
    return sites


def _hiera(backbone: Any, prefix: str) -> list[SiteSpec]:
    config = backbone.config
    stride = config.patch_stride[0]
    sites = []
    for i, block in enumerate(backbone.blocks):
        # the first block of a stage sees the tokens of the one before, and pools its queries
        keys = _windowed(stride, block.window_size)
        queries = keys
        if block.query_stride:
            pool = int(block.query_stride[0])
            stride *= pool
            queries = _windowed(stride, block.window_size // pool)
        kind: SiteKind = "window" if block.window_size > 0 else "global"
        sites.append(
            SiteSpec(f"encoder.{i}", f"{prefix}blocks.{i}.attn", kind, block.attn.num_attention_heads, queries, keys)
        )
    return sites


def _windowed(stride: int, window: int) -> TokenLayout:
    return TokenLayout((stride, stride), window=(window, window) if window > 0 else None)


def _sam2_decoder(transformer: Any, prefix: str) -> list[SiteSpec]:
    heads = transformer.layers[0].self_attn.num_attention_heads
    return decoder_sites(prefix.removesuffix("."), len(transformer.layers), heads, TokenLayout(_SAM2_TOKEN))


def _segformer(model: Any, prefix: str) -> list[SiteSpec]:
    sites: list[SiteSpec] = []
    stride = 1
    for name, module in model.named_modules():
        if type(module).__name__ == "SegformerOverlapPatchEmbeddings":
            stride *= module.proj.stride[0]
        elif type(module).__name__ == "SegformerAttention":
            reduced = stride * module.sequence_reduction_ratio
            queries, keys = (TokenLayout((size, size)) for size in (stride, reduced))
            number = f"encoder.{len(sites)}"
            sites.append(SiteSpec(number, f"{prefix}{name}", "global", module.num_attention_heads, queries, keys))
    return sites


def _detr(model: Any, prefix: str) -> list[SiteSpec]:
    stride = _DETR_STRIDE // (2 if getattr(model.config, "dilation", False) else 1)
    image, config = TokenLayout((stride, stride)), model.config
    sites = [
        SiteSpec(
            f"encoder.{i}", f"{prefix}encoder.layers.{i}.self_attn", "global", _heads(config, "encoder"), image, image
        )
        for i in range(len(model.encoder.layers))
    ]
    heads = _heads(config, "decoder")
    for i in range(len(model.decoder.layers)):
        layer = f"{prefix}decoder.layers.{i}"
        sites += [
            SiteSpec(f"decoder.{i}.prompts", f"{layer}.self_attn", "prompt", heads, FREE_TOKENS, FREE_TOKENS),
            SiteSpec(
                f"decoder.{i}.prompt-to-image", f"{layer}.encoder_attn", "prompt-to-image", heads, FREE_TOKENS, image
            ),
        ]
    return sites


def _deformable_detr(model: Any, prefix: str) -> list[SiteSpec]:
    heads = _heads(model.config, "decoder")
    return [
        SiteSpec(
            f"decoder.{i}.prompts", f"{prefix}decoder.layers.{i}.self_attn", "prompt", heads, FREE_TOKENS, FREE_TOKENS
        )
        for i in range(len(model.decoder.layers))
    ]


def _heads(config: Any, side: str) -> int:
    return int(getattr(config, f"{side}_attention_heads"))


_FAMILIES = {
    "Sam2HieraDetModel": _hiera,
    "Sam2TwoWayTransformer": _sam2_decoder,
    "SegformerModel": _segformer,
    "DetrModel": _detr,
    "DeformableDetrModel": _deformable_detr,
}
