"""Whether a saved session belongs to this volume and this model: short hashes of what predictions depend on."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.volumes.volume import Volume

_DIGEST_BYTES = 16
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SAMPLED = 4096  # values per tensor: training changes them all, and hashing gigabytes would stall every save


def volume_fingerprint(volume: Volume) -> str:
    """A hash of a volume's voxels, shape and affine (to a nanometre); its file's name does not matter."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(repr((volume.shape, volume.data.dtype.newbyteorder("=").str)).encode())
    # Adding zero turns -0.0 into 0.0, which are one place but two byte patterns.
    digest.update((np.round(volume.affine.astype(np.float64), 6) + 0.0).tobytes())
    for plane in volume.data:
        native = np.ascontiguousarray(plane)
        digest.update(native.astype(native.dtype.newbyteorder("="), copy=False).data)
    return digest.hexdigest()


def model_fingerprint(model: PromptableModel | VolumePromptableModel) -> str:
    """A hash of a model's name and a sample of each of its tensors, whatever device and number format it runs in."""
    return _of_tensors(model, model.card.name)


def earlier_fingerprints(model: PromptableModel | VolumePromptableModel) -> frozenset[str]:
    """What sessions called the same weights when their names still told the number format they ran in."""
    return frozenset(_of_tensors(model, f"{model.card.name} {dtype}") for dtype in _DTYPES)


def _of_tensors(model: PromptableModel | VolumePromptableModel, called: str) -> str:
    digest = hashlib.blake2b(called.encode(), digest_size=_DIGEST_BYTES)
    for name, tensor in model.network.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLED)].cpu().double().numpy()  # Apple's GPUs know no float64
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()
