"""Encoded slices on disk, so that a volume opened again answers at once: one zarr file per slice, within a budget.

An entry's name is a hash of all that the embedding depends on: the pixels the network sees, their size, every weight,
the adapter's version, number format and device. A changed file, window or model therefore has other names, and an
entry found is always right. Several processes may use one folder: files appear whole, by renaming, and one that is
damaged is removed with a warning.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import warnings
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_medtransformer.given import path as path_of
from napari_medtransformer.given import whole
from napari_medtransformer.models.base import ImageEmbedding, PromptableModel

_DIGEST_BYTES = 20
_SUFFIX = ".zarr.zip"
_LAYOUT = 1  # of the entries; raised when what is stored, or how a slice is prepared, changes
_FILL_TO = 0.9  # of the budget: room is made for some entries at once


def default_folder() -> Path:
    """Where embeddings are kept unless told otherwise: this user's cache."""
    from platformdirs import user_cache_path

    return user_cache_path("napari-medtransformer", appauthor=False) / "embeddings"


class EmbeddingStore:
    """Embeddings in a folder, the least recently used removed first. Safe in threads and processes.

    budget_bytes: of disk for all volumes and models together. Raises InvalidOption.
    """

    def __init__(self, folder: Path | None = None, budget_bytes: int = 5_000_000_000) -> None:
        self.folder = default_folder() if folder is None else path_of(folder, "a folder of encoded slices")
        self.budget_bytes = whole(budget_bytes, "what encoded slices may take of a disk, in bytes,", least=0)
        self.hits = self.misses = 0
        self._weights: weakref.WeakKeyDictionary[PromptableModel, tuple[Any, str]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self, model: PromptableModel, image: np.ndarray, pixel_size: tuple[float, float]) -> ImageEmbedding:
        """The embedding of an image, read if it is there, else encoded and written. image: as for model.encode.

        A disk that is full or not writable is told by a warning; the embedding is returned all the same.
        """
        path = self.path(model, image, pixel_size)
        features = _read(path)
        if features is not None:
            self.hits += 1
            rows, columns = image.shape
            placement = model.placement((rows, columns), pixel_size)
            return ImageEmbedding(tuple(one.to(model.device) for one in features), placement)
        self.misses += 1
        embedding = model.encode(image, pixel_size)
        if all(type(one) is torch.Tensor for one in embedding.features) and embedding.features:
            try:
                self._write(path, embedding.features)
            except OSError as error:
                warnings.warn(f"an encoded slice was not kept in {self.folder}: {error.strerror}", stacklevel=2)
        return embedding

    def path(self, model: PromptableModel, image: np.ndarray, pixel_size: tuple[float, float]) -> Path:
        """Where the embedding of an image by a model lies, or will."""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        ratio = round(pixel_size[0] / pixel_size[1], 9)
        digest.update(f"{_LAYOUT} {image.shape} {image.dtype.str} {ratio}".encode())
        digest.update(np.ascontiguousarray(image).data)
        name = digest.hexdigest()
        return self.folder / self._model_name(model) / name[:2] / (name + _SUFFIX)

    def clear(self) -> None:
        """Remove every entry."""
        for path, _, _ in self._entries():
            path.unlink(missing_ok=True)

    def bytes_on_disk(self) -> int:
        """How much the entries take."""
        return sum(size for _, size, _ in self._entries())

    def _model_name(self, model: PromptableModel) -> str:
        """A hash of the model, computed again when a weight was changed in place or another dtype chosen."""
        tensors = list(model.network.state_dict(keep_vars=True).values())
        mark = (model.dtype, str(model.device), tuple((id(one), _version(one)) for one in tensors))
        with self._lock:
            known = self._weights.get(model)
            if known is None or known[0] != mark:
                known = self._weights[model] = (mark, weights_fingerprint(model))
            return known[1]

    def _write(self, path: Path, features: tuple[torch.Tensor, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            _save(partial, features)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._make_room()

    def _make_room(self) -> None:
        with self._lock:
            entries = sorted(self._entries(), key=lambda entry: entry[2])
            total = sum(size for _, size, _ in entries)
            if total <= self.budget_bytes:
                return
            for path, size, _ in entries[:-1]:  # what was just written stays
                with suppress(OSError):  # another process was faster, or has it open
                    path.unlink()
                total -= size
                if total <= _FILL_TO * self.budget_bytes:
                    return

    def _entries(self) -> list[tuple[Path, int, int]]:
        """Every file with its size and the time, in nanoseconds, when it was last used."""
        found = []
        for path in self.folder.rglob(f"*{_SUFFIX}"):
            with suppress(OSError):  # removed by another process meanwhile
                stat = path.stat()
                found.append((path, stat.st_size, stat.st_mtime_ns))
        return found


def weights_fingerprint(model: PromptableModel) -> str:
    """A hash of every weight of a model, its name, number format and kind of device, and this program's version."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(f"{version('napari-medtransformer')} {type(model).__module__}.{type(model).__qualname__} ".encode())
    digest.update(f"{model.card.name} {model.card.input} {model.dtype} {model.device.type}".encode())
    for name, tensor in model.network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes_of(tensor).data)
    return f"{model.card.name}-{digest.hexdigest()}"


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; those made for inference only do not count it."""
    return -1 if tensor.is_inference() else int(tensor._version)


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)


def _save(path: Path, features: tuple[torch.Tensor, ...]) -> None:
    import zarr

    with _store(path, "w") as store:
        group = zarr.create_group(store, attributes={"layout": _LAYOUT, "features": len(features)})
        for number, feature in enumerate(features):
            # The bytes, as zarr has no bfloat16; one chunk, as a slice is always read whole.
            raw = _bytes_of(feature)
            said = {"shape": list(feature.shape), "dtype": str(feature.dtype).removeprefix("torch.")}
            chunk = (max(1, raw.size),)
            array = group.create_array(f"{number}", shape=raw.shape, dtype="u1", chunks=chunk, attributes=said)
            array[:] = raw


def _read(path: Path) -> list[torch.Tensor] | None:
    """The features of an entry, and the entry marked as used; None if it is not there or was damaged and removed."""
    import zarr

    if not path.is_file():
        return None
    features = []
    try:
        os.utime(path)
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError("a checksum does not match")
        with _store(path, "r") as store:
            group = zarr.open_group(store, mode="r")
            for number in range(int(group.attrs["features"])):
                array: Any = group[f"{number}"]
                flat = torch.from_numpy(np.ascontiguousarray(array[:]))
                dtype = getattr(torch, str(array.attrs["dtype"]))
                features.append(flat.view(dtype).reshape(tuple(array.attrs["shape"])))
    except FileNotFoundError:
        return None  # another process made room
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        warnings.warn(f"a damaged encoded slice was removed, {path}: {error}", stacklevel=2)
        with suppress(OSError):
            path.unlink()
        return None
    return features


@contextmanager
def _store(path: Path, mode: Any) -> Iterator[Any]:
    from zarr.storage import ZipStore

    store = ZipStore(path, mode=mode)
    try:
        yield store
    finally:
        store.close()
