"""Whether a saved session belongs to this volume and this model: short hashes of what predictions depend on."""

from __future__ import annotations

import hashlib

import numpy as np

from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.volumes.volume import Volume

_DIGEST_BYTES = 16
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
    """A hash of a model's name, precision, and a sample of each of its tensors."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(f"{model.card.name} {model.dtype}".encode())
    for name, tensor in model.network.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLED)].double().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()
