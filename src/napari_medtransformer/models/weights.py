"""Weights from files: where they are, loading them without running anything in them, and whether they fit."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.given import path as path_of
from napari_medtransformer.models.card import BUNDLED, ModelCard
from napari_medtransformer.models.download import fetch_weights
from napari_medtransformer.progress import Progress, run_to_end

# Keys under which training scripts keep the network's tensors, beside optimiser and epoch.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "teacher")
# What tells a checkpoint's family: parts of key names that no other family has.
_FAMILIES = (
    ("SAM-HQ", ("mask_decoder.hf_token",)),
    ("SAM-HQ (transformers' names)", ("mask_decoder.hq_token",)),
    ("SAM-Med2D", ("image_encoder.blocks.0.Adapter.",)),
    ("SAM 2 (Meta's names)", ("sam_mask_decoder.",)),
    ("SAM 2 (transformers' names)", ("vision_encoder.backbone.blocks.", "memory_attention.")),
    ("SAM-Med3D", ("image_encoder.patch_embed.proj.weight", "image_encoder.blocks.0.attn.rel_pos_d")),
    ("SAM (Meta's names: SAM, MedSAM)", ("image_encoder.patch_embed.proj.",)),
    ("SAM (transformers' names)", ("vision_encoder.patch_embed.projection.",)),
    ("SwinUNETR (MONAI)", ("swinViT.",)),
    ("SwinUNETR (MONAI's self-supervised encoder)", ("layers1.0.blocks.", "layers4.0.downsample.")),
    ("UNETR (MONAI)", ("vit.patch_embedding.",)),
    ("SegFormer (transformers)", ("segformer.encoder.",)),
    ("UperNet (transformers)", ("auxiliary_head.", "backbone.encoder.")),
    ("medt-click", ("encoder.stem2.", "decoder.fourier")),
)
_TORCH_STARTS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04")  # a zip archive; pickles of torch before 1.6
_SHOWN = 3  # keys named in a message before "and n more"


def find_weights(
    card: ModelCard, weights: str | Path | None = None, on_progress: Callable[[Progress], None] | None = None
) -> Path:
    """The file of a card's weights, downloaded if need be, or the file that was given instead.

    Raises UnreadableWeights if there is none, CannotWrite if a download does not fit on the disk.
    """
    if weights is not None:
        return path_of(weights, "a checkpoint that is not 'random'", UnreadableWeights).expanduser()
    if card.weights is None:
        raise UnreadableWeights(f"{card.name} comes without weights; give a checkpoint's path, or 'random'.")
    if isinstance(card.weights, Path):
        return card.weights
    if isinstance(card.weights, str):
        return BUNDLED / card.weights
    return run_to_end(fetch_weights(card), on_progress)


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU: safetensors, or a torch file loaded with weights_only.

    A wrapper such as {"model": …} and a DataParallel prefix "module." are taken off. Raises UnreadableWeights for a
    file that is missing, truncated, of another format, or that needs more than tensors to be unpickled.
    """
    path = path_of(path, "a checkpoint", UnreadableWeights)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UnreadableWeights(f"weights {path} {what}; give the path of a .safetensors, .pth or .pt file.")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UnreadableWeights(f"weights {path} cannot be read: {error.strerror}.") from error
    if not start:
        raise UnreadableWeights(f"weights {path} are empty (0 bytes); fetch them again.")
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise UnreadableWeights(f"weights {path} are a web page, not a checkpoint; download the file itself.")
    if start[8:9] == b"{":
        return _named_tensors(_load_safetensors(path), path)
    if start[:2] not in _TORCH_STARTS:
        raise UnreadableWeights(
            f"weights {path} are no checkpoint of torch or safetensors; give a .safetensors, .pth or .pt file."
        )
    return _named_tensors(_load_torch(path), path)


def _load_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UnreadableWeights(
            f"weights {path} ({path.stat().st_size:,} bytes) are truncated or damaged safetensors: {error}; "
            "fetch them again."
        ) from error


class _Inert:
    """Stands in for what training scripts save beside the network: takes any state, keeps none and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _plain_dict(*args: object) -> dict[object, object]:
    """Stands in for a defaultdict, which torch refuses to fill: its items are not wanted."""
    return {}


# Found in published checkpoints (SAM-Med2D keeps its optimiser, others their arguments): none of these is run.
_OPTIMISERS = [f"torch.optim.{name.lower()}.{name}" for name in ("Adam", "AdamW", "SGD")]
_HARMLESS: list[Any] = [
    *((_Inert, name) for name in (*_OPTIMISERS, "argparse.Namespace")),
    (_plain_dict, "collections.defaultdict"),
    *((dict, f"{module}.dict") for module in ("builtins", "__builtin__")),
]


def _load_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            # pages of a mapped file are read when a tensor is copied, and an optimiser's never
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    # torch's unpickler meets damaged bytes with whatever exception its instructions run into.
    except Exception as error:
        refused = re.search(r"unsupported global: global (\S+)|unsupported global (\S+)", str(error), re.IGNORECASE)
        if refused is not None:
            raise UnreadableWeights(
                f"weights {path} would run code when loaded ({refused.group(1) or refused.group(2)}) and are refused; "
                "save the network's state_dict alone, best as .safetensors."
            ) from error
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".") if str(error) else type(error).__name__
        raise UnreadableWeights(
            f"weights {path} ({path.stat().st_size:,} bytes) are truncated or damaged: {reason}; fetch them again."
        ) from error


def _named_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """What was loaded as {name: tensor}."""
    for _ in range(2):  # {"state_dict": {"model": …}} occurs
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded, Mapping) and key in loaded), None)
        if not isinstance(inner, Mapping):
            break
        loaded = inner
    every = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {k: v for k, v in every if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise UnreadableWeights(f"weights {path} hold no named tensors; expected a network's state_dict.")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def guess_family(state: Mapping[str, Tensor]) -> str | None:
    """The family a checkpoint looks like by its names, such as "SAM (Meta's names: SAM, MedSAM)", or None."""
    for family, marks in _FAMILIES:
        if all(any(mark in name for name in state) for mark in marks):
            return family
    return None


def check_fit(network: nn.Module, state: Mapping[str, Tensor], name: str = "the network") -> None:
    """Whether `state` has exactly the tensors of `network`, in their shapes.

    Raises UnreadableWeights that says which are missing, unexpected or of another shape, and which family the
    checkpoint looks like.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    other = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = [
        f"{len(keys)} {what} ({_some(keys)})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
        if keys
    ]
    if faults:
        family = guess_family(state)
        looks = f"they look like {family}" if family else "they look like no family known here"
        raise UnreadableWeights(f"the weights do not fit {name}: {', '.join(faults)}; {looks}.")


def fill(network: nn.Module, state: Mapping[str, Tensor], name: str = "the network") -> None:
    """Copy `state` into `network` after `check_fit`."""
    check_fit(network, state, name)
    network.load_state_dict(dict(state), strict=True)


def _some(keys: list[str]) -> str:
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
