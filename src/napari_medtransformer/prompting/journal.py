"""A session's file that grows by what each step changed: cheap to keep up to date, whole up to the last step written.

It is a row of records, each with its length and checksum: the whole session first, then what changed. A record that a
crash cut off is left out when the file is read. The file is begun anew when the changes outgrow the whole.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from napari_medtransformer.errors import InvalidSession, MedTransformerError, UnreadableFile
from napari_medtransformer.files import replacing
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
from napari_medtransformer.prompting.prompts import SliceKey
from napari_medtransformer.prompting.slice_model import PackedPrediction
from napari_medtransformer.prompting.state import SessionState, SliceState
from napari_medtransformer.prompting.storage import SessionFacts, facts_from_json, facts_to_json

_MAGIC = b"medt-journal-1\n"
_HEAD = struct.Struct("<III")  # length of the JSON, of the masks, checksum of both
_LARGEST_RECORD = 1 << 30  # bytes; more is a damaged file
_GROWTH = 4  # times the whole session, that changes may take before the file is begun anew
_GROWTH_BYTES = 4_000_000

Written = dict[SliceKey, tuple[SliceState, PackedPrediction | None]]


@dataclass(frozen=True)
class Moment:
    """A session at one moment, to be written: what it belongs to, its state and the predictions of its prompts."""

    facts: SessionFacts
    state: SessionState
    predictions: Mapping[SliceKey, PackedPrediction]

    def slices(self) -> Written:
        """Every slice with its prediction."""
        return {key: (there, self.predictions.get(key)) for key, there in self.state.slices.items()}


class Journal:
    """A journal being written. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts: SessionFacts | None = None
        self._written: Written = {}
        self._whole = 0  # bytes of the session as it was written whole
        self._end = 0  # bytes that are good

    def write(self, moment: Moment) -> None:
        """Add what changed since the last moment written. Raises OSError or CannotWrite, and then nothing is lost.

        What was written before stays readable, and the next call writes all that is missing.
        """
        grown = self._end - self._whole
        if moment.facts != self._facts or grown > max(_GROWTH_BYTES, _GROWTH * self._whole):
            self._begin(moment)
            return
        slices = moment.slices()
        changed = {key: one for key, one in slices.items() if not _same(self._written.get(key), one)}
        record = _record(moment.state, changed, [key for key in self._written if key not in slices], None)
        with self.path.open("r+b") as stream:
            stream.seek(self._end)
            stream.truncate()  # of what a full disk cut off
            _put(stream, record)
        self._end += len(record)
        self._written = slices

    def _begin(self, moment: Moment) -> None:
        slices = moment.slices()
        data = _MAGIC + _record(moment.state, slices, [], moment.facts)
        with replacing(self.path) as stream:
            _put(stream, data)
        self._facts, self._written, self._whole, self._end = moment.facts, slices, len(data), len(data)


def read_journal(path: Path) -> tuple[SessionFacts, SessionState, dict[SliceKey, PackedPrediction], bool]:
    """The session as far as it was written, and whether a last step was cut off.

    Raises UnreadableFile and InvalidSession.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path} cannot be read: {error.strerror}.") from error
    if not data.startswith(_MAGIC):
        raise InvalidSession(f"{path} is no session that was kept automatically.")
    facts: SessionFacts | None = None
    state, predictions = SessionState(), dict[SliceKey, PackedPrediction]()
    at = len(_MAGIC)
    while at < len(data):
        said = _take(data, at)
        if said is None:
            break
        item, masks, at = said
        try:
            facts = facts_from_json(item["facts"]) if item["facts"] is not None else facts
            if facts is None:
                raise ValueError("it does not begin with a whole session")
            slices = dict(state.slices)
            table = masks_of(masks)
            for key in (SliceKey(*(int(n) for n in key)) for key in item["removed"]):
                slices.pop(key, None)
                predictions.pop(key, None)
            for one in item["slices"]:
                key, slices[key], prediction = slice_from_json(one, table, facts.volume_shape)
                predictions.pop(key, None)
                if prediction is not None:
                    predictions[key] = prediction
            objects = tuple(object_from_json(one) for one in item["objects"])
            followed = followed_from_json(item["followed"])
            state = SessionState(objects, slices, followed, int(item["next_prompt_id"]), int(item["step"]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, MedTransformerError) as error:
            raise InvalidSession(f"{path} is damaged: {error}.") from error
    if facts is None:
        raise InvalidSession(f"{path} holds no whole session.")
    return facts, state, predictions, at < len(data)


def _same(before: tuple[SliceState, PackedPrediction | None] | None, now: tuple[SliceState, Any]) -> bool:
    """Whether both are the same objects: records are never changed, so nothing needs to be compared."""
    return before is not None and before[0] is now[0] and before[1] is now[1]


def _record(state: SessionState, slices: Written, removed: list[SliceKey], facts: SessionFacts | None) -> bytes:
    table = MaskTable()
    said = {
        "facts": None if facts is None else facts_to_json(facts),
        "objects": [object_to_json(one) for one in state.objects],
        "followed": followed_to_json(state.followed),
        "next_prompt_id": state.next_prompt_id,
        "step": state.step,
        "slices": [slice_to_json(key, there, found, table) for key, (there, found) in slices.items()],
        "removed": [[key.object_id, key.axis, key.index] for key in removed],
    }
    text, masks = zlib.compress(json.dumps(said).encode(), 1), table.to_npz()
    return _HEAD.pack(len(text), len(masks), zlib.crc32(masks, zlib.crc32(text))) + text + masks


def _take(data: bytes, at: int) -> tuple[dict[str, Any], bytes, int] | None:
    """The record at a place, and where the next begins; None if it is cut off or damaged."""
    if at + _HEAD.size > len(data):
        return None
    text_length, masks_length, checksum = _HEAD.unpack_from(data, at)
    begin, end = at + _HEAD.size, at + _HEAD.size + text_length + masks_length
    if end > len(data) or max(text_length, masks_length) > _LARGEST_RECORD:
        return None
    if zlib.crc32(data[begin:end]) != checksum:
        return None
    text = zlib.decompressobj().decompress(data[begin : begin + text_length], _LARGEST_RECORD)
    return dict(json.loads(text)), data[begin + text_length : end], end


def _put(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())
