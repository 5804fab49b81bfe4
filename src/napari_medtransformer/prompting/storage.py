"""A session as one file: a zip of session.json (what was said) and masks.npz (what was found)."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

from napari_medtransformer.errors import InvalidPrompt, InvalidSession, MedTransformerError, UnreadableFile
from napari_medtransformer.files import file_to_write, replacing
from napari_medtransformer.given import path as path_of
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.models.volume_model import VolumePromptableModel
from napari_medtransformer.prompting.crop_model import CropModel, model_on_volume
from napari_medtransformer.prompting.encoding import (
    MaskTable,
    followed_from_json,
    followed_to_json,
    masks_of,
    object_from_json,
    object_to_json,
    slice_from_json,
    slice_to_json,
)
from napari_medtransformer.prompting.fingerprints import earlier_fingerprints
from napari_medtransformer.prompting.masks import PackedMask
from napari_medtransformer.prompting.prompts import SliceKey
from napari_medtransformer.prompting.slice_model import ModelOnVolume, PackedPrediction, SliceModel
from napari_medtransformer.prompting.state import SessionState
from napari_medtransformer.volumes.volume import Volume

FORMAT = "napari-medtransformer session"
VERSION = 3  # 2 had no answers in 3D, 1 points, boxes and masks only; both are still read
_LARGEST_ENTRY = 1 << 30  # bytes; a real session has megabytes, so more is a damaged or hostile file
_JSON, _MASKS = "session.json", "masks.npz"

Predictions = Mapping[SliceKey, PackedPrediction]


@dataclass(frozen=True)
class ModelName:
    """A model that predicted some of a session's masks. fingerprint: see fingerprints.model_fingerprint."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class SessionFacts:
    """What a session belongs to: the models that answered, the present one last; the volume; the window.

    part: which 3D part of a larger image the volume is, such as "time 3"; "" where it is the whole.
    """

    models: tuple[ModelName, ...]
    volume_name: str
    volume_shape: tuple[int, int, int]
    volume_fingerprint: str
    window: tuple[float, float]
    part: str = ""


def facts_of(slices: ModelOnVolume, earlier: Sequence[ModelName], part: str) -> SessionFacts:
    """What a session with these slices belongs to."""
    models = (*earlier, ModelName(slices.model.card.name, slices.model_fingerprint))
    volume = slices.volume
    return SessionFacts(models, volume.name, volume.shape, slices.volume_fingerprint, slices.window, part)


def write_session(
    path: str | PathLike[str], facts: SessionFacts, state: SessionState, predictions: Predictions
) -> None:
    """Write a session's present state and the predictions of its prompts, whole or not at all. Raises CannotWrite."""
    with replacing(file_to_write(path)) as stream:
        dump_session(stream, facts, state, predictions)


def dump_session(stream: IO[bytes], facts: SessionFacts, state: SessionState, predictions: Predictions) -> None:
    """Write a session into an open file."""
    table = MaskTable()
    said = {
        "format": FORMAT,
        "version": VERSION,
        **facts_to_json(facts),
        "objects": [object_to_json(one) for one in state.objects],
        "followed": followed_to_json(state.followed),
        "next_prompt_id": state.next_prompt_id,
        "step": state.step,
        "slices": [slice_to_json(key, there, predictions.get(key), table) for key, there in state.slices.items()],
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_JSON, json.dumps(said))
        archive.writestr(_MASKS, table.to_npz())


def read_session(
    path: str | PathLike[str], model: PromptableModel | VolumePromptableModel, volume: Volume, embeddings_bytes: int
) -> tuple[SliceModel | CropModel, SessionFacts, SessionState, dict[SliceKey, PackedPrediction]]:
    """What write_session wrote, for the same model and volume. Raises UnreadableFile and InvalidSession."""
    source = path_of(path, "a saved session", UnreadableFile)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{source} cannot be read: {error.strerror}. Give a saved session.") from error
    facts, state, predictions = parse_session(data, source)
    try:
        slices = model_on_volume(model, volume, facts.window, embeddings_bytes)
    except InvalidPrompt as error:
        raise InvalidSession(f"{source} is damaged: {error}.") from error
    check_volume(source, facts, slices)
    check_model(source, facts, slices)
    return slices, facts, state, predictions


def parse_session(data: bytes, source: Path) -> tuple[SessionFacts, SessionState, dict[SliceKey, PackedPrediction]]:
    """A session's file, of whatever volume and model. source: its name, for errors. Raises InvalidSession."""
    said, masks = _parts(data, source)
    try:
        facts = facts_from_json(said)
        objects = tuple(object_from_json(one) for one in said["objects"])
        states, predictions = {}, {}
        for item in said["slices"]:
            key, there, prediction = slice_from_json(item, masks, facts.volume_shape)
            states[key] = there
            if prediction is not None:
                predictions[key] = prediction
        known = {one.object_id for one in objects}
        if len(known) != len(objects) or any(key.object_id not in known for key in states):
            raise ValueError("objects do not match slices")
        followed = followed_from_json(said.get("followed", []))
        state = SessionState(objects, states, followed, int(said["next_prompt_id"]), int(said["step"]))
        return facts, state, predictions
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, MedTransformerError) as error:
        raise InvalidSession(f"{source} is damaged: {error}. Save the session again, or begin a new one.") from error


def check_volume(source: Path, facts: SessionFacts, slices: ModelOnVolume) -> None:
    """Raises InvalidSession if the session was made on another volume."""
    if facts.volume_fingerprint != slices.volume_fingerprint:
        raise InvalidSession(
            f"{source} belongs to another volume ({facts.volume_name}, {list(facts.volume_shape)} voxels), "
            f"not to {slices.volume.name} ({list(slices.volume.shape)} voxels); open that one first."
        )


def check_model(source: Path, facts: SessionFacts, slices: ModelOnVolume) -> None:
    """Raises InvalidSession if the session was made with another model, or other weights of it."""
    saved, name = facts.models[-1], slices.model.card.name
    if saved.name != name:
        raise InvalidSession(f"{source} was made with {saved.name}, not with {name}; load that model first.")
    if saved.fingerprint != slices.model_fingerprint and saved.fingerprint not in earlier_fingerprints(slices.model):
        raise InvalidSession(f"{source} was made with other weights of {name}; load those first.")


def facts_to_json(facts: SessionFacts) -> dict[str, Any]:
    """What a session belongs to, as JSON."""
    names = [{"name": one.name, "fingerprint": one.fingerprint} for one in facts.models]
    return {
        "model": names[-1],
        "earlier_models": names[:-1],
        "volume": {
            "name": facts.volume_name,
            "shape": list(facts.volume_shape),
            "fingerprint": facts.volume_fingerprint,
            "part": facts.part,
        },
        "window": list(facts.window),
    }


def facts_from_json(said: dict[str, Any]) -> SessionFacts:
    """What facts_to_json wrote; version 1 knows one model and no parts. Raises KeyError, TypeError, ValueError."""
    window = (float(said["window"][0]), float(said["window"][1]))
    if not window[0] < window[1]:
        raise ValueError(f"a window is (low, high) with low < high, not {window}")
    of_volume = dict(said["volume"])
    z, y, x = (int(n) for n in of_volume["shape"])
    models = (*said.get("earlier_models", []), said["model"])
    return SessionFacts(
        tuple(ModelName(str(one["name"]), str(one["fingerprint"])) for one in models),
        str(of_volume["name"]),
        (z, y, x),
        str(of_volume["fingerprint"]),
        window,
        str(of_volume.get("part", "")),
    )


def _parts(data: bytes, source: Path) -> tuple[dict[str, Any], list[PackedMask]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.file_size > _LARGEST_ENTRY for entry in archive.infolist()):
                raise InvalidSession(f"{source} holds more than any session does and was not opened.")
            said = json.loads(archive.read(_JSON))
            masks = masks_of(archive.read(_MASKS))
    # RuntimeError is what zipfile raises for encryption and for a compression it does not know.
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError, RuntimeError) as error:
        raise InvalidSession(f"{source} is no saved session, or a damaged one: {error}.") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise InvalidSession(f"{source} is no saved session of this program.")
    if said.get("version") not in range(1, VERSION + 1):
        raise InvalidSession(f"{source} has version {said.get('version')}, known is {VERSION}; update this program.")
    return said, masks
