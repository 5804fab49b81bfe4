"""A session as one file: a zip of session.json (what was said) and masks.npz (what was found)."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from napari_medtransformer.errors import CannotWrite, InvalidPrompt, InvalidSession, MedTransformerError, UnreadableFile
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.prompting.history import SessionObject, SessionState, SliceState
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt, SliceKey
from napari_medtransformer.prompting.slice_model import PackedPrediction, SliceModel
from napari_medtransformer.volumes.volume import Volume
from napari_medtransformer.volumes.writing import replacing

FORMAT = "napari-medtransformer session"
VERSION = 1
_LARGEST_ENTRY = 1 << 30  # bytes; a real session has megabytes, so more is a damaged or hostile file
_JSON, _MASKS = "session.json", "masks.npz"

Predictions = dict[SliceKey, PackedPrediction]


class _MaskTable:
    """Masks by number, each distinct one once."""

    def __init__(self) -> None:
        self.numbers: dict[PackedMask, int] = {}

    def number(self, mask: PackedMask | None) -> int | None:
        return None if mask is None else self.numbers.setdefault(mask, len(self.numbers))

    def to_npz(self) -> bytes:
        masks = list(self.numbers)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            deflated=np.frombuffer(b"".join(mask.deflated for mask in masks), np.uint8),
            lengths=np.array([len(mask.deflated) for mask in masks], np.int64),
            shapes=np.array([mask.shape for mask in masks], np.int64).reshape(-1, 2),
        )
        return buffer.getvalue()


def write_session(path: str | PathLike[str], slices: SliceModel, state: SessionState, predictions: Predictions) -> None:
    """Write a session's present state and the predictions of its prompts, whole or not at all. Raises CannotWrite."""
    target = Path(path)
    if not target.parent.is_dir():
        raise CannotWrite(f"{target} was not written: there is no folder {target.parent}. Create it first.")
    if target.is_dir():
        raise CannotWrite(f"{target} was not written: it is a folder. Choose a file name.")
    table = _MaskTable()
    said = {
        "format": FORMAT,
        "version": VERSION,
        "model": {"name": slices.model.card.name, "fingerprint": slices.model_fingerprint},
        "volume": {
            "name": slices.volume.name,
            "shape": list(slices.volume.shape),
            "fingerprint": slices.volume_fingerprint,
        },
        "window": list(slices.window),
        "objects": [{"object_id": one.object_id, "name": one.name} for one in state.objects],
        "next_prompt_id": state.next_prompt_id,
        "step": state.step,
        "slices": [_slice_to_json(k, there, predictions.get(k), table) for k, there in state.slices.items()],
    }
    with replacing(target) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_JSON, json.dumps(said))
        archive.writestr(_MASKS, table.to_npz())


def read_session(
    path: str | PathLike[str], model: PromptableModel, volume: Volume, embeddings_bytes: int
) -> tuple[SliceModel, SessionState, Predictions]:
    """What write_session wrote, for the same model and volume. Raises UnreadableFile and InvalidSession."""
    source = Path(path)
    said, masks = _read_parts(source)
    slices = _matching(source, said, model, volume, embeddings_bytes)
    try:
        objects = tuple(SessionObject(int(one["object_id"]), str(one["name"])) for one in said["objects"])
        states, predictions = {}, {}
        for item in said["slices"]:
            key, there, prediction = _slice_from_json(item, masks, slices)
            states[key] = there
            if prediction is not None:
                predictions[key] = prediction
        known = {one.object_id for one in objects}
        if len(known) != len(objects) or any(key.object_id not in known for key in states):
            raise ValueError("objects do not match slices")
        return slices, SessionState(objects, states, int(said["next_prompt_id"]), int(said["step"])), predictions
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, MedTransformerError) as error:
        raise InvalidSession(f"{source} is damaged: {error}. Save the session again, or begin a new one.") from error


def _read_parts(source: Path) -> tuple[dict[str, Any], list[PackedMask]]:
    try:
        with zipfile.ZipFile(source) as archive:
            if any(entry.file_size > _LARGEST_ENTRY for entry in archive.infolist()):
                raise InvalidSession(f"{source} holds more than any session does and was not opened.")
            said = json.loads(archive.read(_JSON))
            with np.load(io.BytesIO(archive.read(_MASKS)), allow_pickle=False) as arrays:
                masks = _masks_from(arrays["deflated"], arrays["lengths"], arrays["shapes"])
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise UnreadableFile(f"{source} cannot be read: {error.strerror}. Give a saved session.") from error
        raise InvalidSession(f"{source} is damaged: {error}.") from error
    # NotImplementedError is zipfile's word for a compression it does not know.
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise InvalidSession(f"{source} is no saved session, or a damaged one: {error}.") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise InvalidSession(f"{source} is no saved session of this program.")
    if said.get("version") != VERSION:
        raise InvalidSession(f"{source} has version {said.get('version')}, known is {VERSION}; update this program.")
    return said, masks


def _masks_from(deflated: np.ndarray, lengths: np.ndarray, shapes: np.ndarray) -> list[PackedMask]:
    """The table's masks. Raises ValueError if one is not what its shape promises."""
    ends = np.cumsum(lengths)
    masks = []
    for end, length, (rows, columns) in zip(ends, lengths, shapes, strict=True):
        data = deflated[end - length : end].tobytes()
        expected = math.ceil(int(rows) * int(columns) / 8)
        # A few bytes can inflate to gigabytes: never more than the shape needs.
        if len(zlib.decompressobj().decompress(data, expected + 1)) != expected:
            raise ValueError("a mask does not fit its shape")
        masks.append(PackedMask((int(rows), int(columns)), data))
    return masks


def _matching(
    source: Path, said: dict[str, Any], model: PromptableModel, volume: Volume, embeddings_bytes: int
) -> SliceModel:
    """The slice model of the session. Raises InvalidSession if it was saved with another volume or model."""
    try:
        window = (float(said["window"][0]), float(said["window"][1]))
        of_volume, of_model = dict(said["volume"]), dict(said["model"])
        slices = SliceModel(model, volume, window, embeddings_bytes)
    except (KeyError, TypeError, ValueError, IndexError, InvalidPrompt) as error:
        raise InvalidSession(f"{source} is damaged: {error}.") from error
    if of_volume.get("fingerprint") != slices.volume_fingerprint:
        raise InvalidSession(
            f"{source} belongs to another volume ({of_volume.get('name')}, {of_volume.get('shape')} voxels), "
            f"not to {volume.name} ({list(volume.shape)} voxels); open that one first."
        )
    if of_model.get("name") != model.card.name:
        raise InvalidSession(
            f"{source} was made with {of_model.get('name')}, not with {model.card.name}; load that model first."
        )
    if of_model.get("fingerprint") != slices.model_fingerprint:
        raise InvalidSession(f"{source} was made with other weights of {model.card.name}; load those first.")
    return slices


def _slice_to_json(
    key: SliceKey, there: SliceState, prediction: PackedPrediction | None, table: _MaskTable
) -> dict[str, Any]:
    return {
        "object_id": key.object_id,
        "axis": key.axis,
        "index": key.index,
        "prompts": [{"id": number, **_prompt_to_json(prompt, table)} for number, prompt in there.prompts],
        "candidate": there.candidate,
        "changed": there.changed,
        "propagated": table.number(there.propagated),
        "prediction": None
        if prediction is None
        else {
            "masks": [table.number(mask) for mask in prediction.masks],
            "scores": list(prediction.scores),
            "best": prediction.best,
        },
    }


def _slice_from_json(
    item: dict[str, Any], masks: list[PackedMask], slices: SliceModel
) -> tuple[SliceKey, SliceState, PackedPrediction | None]:
    key = SliceKey(int(item["object_id"]), int(item["axis"]), int(item["index"]))
    prompts = tuple((int(p["id"]), _prompt_from_json(p, key, masks)) for p in item["prompts"])
    if not 0 <= key.index < slices.volume.shape[key.axis] or any(prompt.key != key for _, prompt in prompts):
        raise ValueError(f"a prompt is not on its slice {key.index} of axis {key.axis}")
    if prompts:
        slices.prompts_for_model(key, tuple(prompt for _, prompt in prompts))
    propagated = None if item["propagated"] is None else masks[item["propagated"]]
    prediction = None
    if item["prediction"] is not None:
        found = item["prediction"]
        scores = tuple(float(score) for score in found["scores"])
        prediction = PackedPrediction(tuple(masks[n] for n in found["masks"]), scores, int(found["best"]))
        if not 0 <= prediction.best < len(scores) == len(prediction.masks):
            raise ValueError("a prediction's masks and scores do not match")
    candidate = None if item["candidate"] is None else int(item["candidate"])
    if candidate is not None and (prediction is None or not 0 <= candidate < len(prediction.masks)):
        raise ValueError("a chosen mask is not there")
    shape = slices.slice_shape(key.axis)
    if any(m.shape != shape for m in (*(prediction.masks if prediction else ()), propagated or PackedMask(shape, b""))):
        raise ValueError(f"a mask does not fit slices of {shape}")
    return key, SliceState(prompts, (), candidate, propagated, int(item["changed"])), prediction


def _prompt_to_json(prompt: Prompt, table: _MaskTable) -> dict[str, Any]:
    if isinstance(prompt, PointPrompt):
        return {"kind": "point", "position_zyx": list(prompt.position_zyx), "positive": prompt.positive}
    if isinstance(prompt, BoxPrompt):
        return {"kind": "box", "start_zyx": list(prompt.start_zyx), "stop_zyx": list(prompt.stop_zyx)}
    return {"kind": "mask", "mask": table.number(prompt.mask), "index": prompt.index}


def _prompt_from_json(item: dict[str, Any], key: SliceKey, masks: list[PackedMask]) -> Prompt:
    def triple(name: str) -> tuple[float, float, float]:
        z, y, x = (float(p) for p in item[name])
        return z, y, x

    if item["kind"] == "point":
        return PointPrompt(triple("position_zyx"), bool(item["positive"]), key.object_id, key.axis)
    if item["kind"] == "box":
        return BoxPrompt(triple("start_zyx"), triple("stop_zyx"), key.object_id, key.axis)
    if item["kind"] == "mask":
        return MaskPrompt(masks[item["mask"]], int(item["index"]), key.object_id, key.axis)
    raise ValueError(f"there is no kind of prompt {item['kind']!r}")
