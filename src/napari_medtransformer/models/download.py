"""Published weights into a cache folder: resumed, retried, cancelled at once, checked before first use.

pooch keeps the cache and checks the hash; the transfer is ours, since pooch neither resumes nor cancels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
import platformdirs

from napari_medtransformer.errors import CannotWrite, UnreadableWeights
from napari_medtransformer.files import write_text
from napari_medtransformer.models.card import ModelCard, WeightsSource
from napari_medtransformer.models.settings import read_settings
from napari_medtransformer.models.transfer import Patience, Transfer, check_free_space
from napari_medtransformer.progress import Progress, Result, Steps

CACHE_VARIABLE = "MEDT_CACHE"
MIRROR_VARIABLE = "MEDT_MIRROR"
OFFLINE_VARIABLE = "MEDT_OFFLINE"

_POLL_S = 0.1  # how long a cancelled download may go unnoticed
_CHUNK = 1 << 22


def cache_folder() -> Path:
    """The folder of downloaded weights: $MEDT_CACHE, the user's setting, or the platform's. It need not exist yet."""
    given = os.environ.get(CACHE_VARIABLE) or read_settings().cache
    return Path(given).expanduser() if given else platformdirs.user_cache_path("napari-medtransformer") / "weights"


def weights_path(source: WeightsSource) -> Path:
    """Where these weights lie once fetched; a file put there by hand is used as well."""
    return cache_folder() / source.filename


def mirrored(url: str) -> str:
    """The address to ask: the published one, or the same path at $MEDT_MIRROR or the mirror in the settings."""
    mirror = os.environ.get(MIRROR_VARIABLE) or read_settings().mirror
    if not mirror:
        return url
    if not mirror.startswith(("https://", "http://")):
        raise UnreadableWeights(f"{MIRROR_VARIABLE} is {mirror!r}; expected an address such as https://mirror.example.")
    asked = urlsplit(url)
    return mirror.rstrip("/") + asked.path + (f"?{asked.query}" if asked.query else "")


def is_offline() -> bool:
    """Whether nothing is to be fetched: by $MEDT_OFFLINE (any value but 0), or by the user's setting."""
    given = os.environ.get(OFFLINE_VARIABLE)
    return read_settings().offline if not given else given != "0"


def is_on_disk(card: ModelCard) -> bool:
    """Whether a card's weights are on this machine: bundled, a file of the user's, or fetched."""
    if isinstance(card.weights, WeightsSource):
        return weights_path(card.weights).is_file()
    return isinstance(card.weights, str) or (isinstance(card.weights, Path) and card.weights.is_file())


def is_checked(card: ModelCard) -> bool:
    """Whether a card's weights are here and were checked as they are: `fetch_weights` would not hash them again."""
    source = card.weights
    if not isinstance(source, WeightsSource):
        return is_on_disk(card)
    path = weights_path(source)
    try:
        return _is_stamped(source, path, _state_of(path))
    except OSError:
        return False


def begun_bytes(card: ModelCard) -> int:
    """How much of a card's weights has come in a download that was broken off, 0 for none."""
    if not isinstance(card.weights, WeightsSource):
        return 0
    part = _part(weights_path(card.weights))
    return part.stat().st_size if part.is_file() else 0


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def fetch_weights(card: ModelCard, patience: Patience | None = None) -> Steps[Path]:
    """Fetch a card's weights unless they are there; the Result is their path, checked against the card's sha256.

    Progress counts bytes. Closing the generator cancels within a fraction of a second; what has come is kept and the
    next call resumes it. Two processes or threads fetch once: the second waits. Raises UnreadableWeights (no network,
    the server refuses, wrong hash) and CannotWrite (disk).
    """
    source = card.weights
    if not isinstance(source, WeightsSource):
        raise UnreadableWeights(f"{card.name} has no published weights to fetch.")
    path = weights_path(source)
    url = mirrored(source.url)
    if not path.is_file():
        if is_offline():
            raise UnreadableWeights(
                f"{source.filename} is not in {path.parent}, and fetching is switched off; put the file there (from "
                f"{url}), or switch offline off in the settings or in {OFFLINE_VARIABLE}."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(
                f"the cache folder {path.parent} cannot be made: {error.strerror}; set {CACHE_VARIABLE} to another."
            ) from error
        lock = filelock.FileLock(path.with_name(path.name + ".lock"), thread_local=False)
        try:
            yield from _wait_for(lock, source)
            if not path.is_file():  # else another process fetched it meanwhile
                yield from _fetch(source, url, path, patience or Patience())
        finally:
            lock.release()
    yield from _verify(source, path)
    yield Result(path)


def _wait_for(lock: filelock.BaseFileLock, source: WeightsSource) -> Iterator[Progress]:
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except filelock.Timeout:
            try:
                lock.acquire(timeout=_POLL_S)
                return
            except filelock.Timeout:
                yield Progress(0, source.bytes, f"another window is fetching {source.filename}")
        except OSError as error:
            raise CannotWrite(
                f"the cache folder {Path(lock.lock_file).parent} cannot be written: {error.strerror}; "
                f"set {CACHE_VARIABLE} to another."
            ) from error


def _fetch(source: WeightsSource, url: str, path: Path, patience: Patience) -> Iterator[Progress]:
    part = _part(path)
    come = part.stat().st_size if part.is_file() else 0
    if source.bytes is not None:
        check_free_space(path.parent, source.bytes - come, source.filename)
    transfer = Transfer(url, path, part, source, patience)
    transfer.start()
    try:
        while not transfer.wait(_POLL_S):
            yield Progress(transfer.done, transfer.total, transfer.message)
    finally:
        transfer.stop()
    if transfer.error is not None:
        raise transfer.error
    yield Progress(transfer.done, transfer.total, f"fetched {source.filename}")


def _verify(source: WeightsSource, path: Path) -> Iterator[Progress]:
    """Check the file's sha256 against the card's, or against the hash pinned at its first use; once per file state."""
    state = _state_of(path)
    if _is_stamped(source, path, state):
        return
    stamp = _stamp(path)
    expected = source.sha256 or _read_stamp(stamp).get("sha256")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            yield Progress(file.tell(), state["bytes"], f"checking {path.name}")
    found = digest.hexdigest()
    if expected is not None and found != expected:
        raise UnreadableWeights(
            f"{path} is not the published file: its sha256 is {found[:12]}…, expected {expected[:12]}…; "
            f"delete it{'' if source.sha256 else f' and {stamp.name}'} and fetch it again."
        )
    with suppress(CannotWrite):  # a cache on read-only media is checked each time instead
        write_text(stamp, json.dumps({**state, "sha256": found}))


def _stamp(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _state_of(path: Path) -> dict[str, int]:
    """What changes when a file is written anew."""
    status = path.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _is_stamped(source: WeightsSource, path: Path, state: dict[str, int]) -> bool:
    """Whether the file was checked in this state, against the card's hash if it has one."""
    pinned = _read_stamp(_stamp(path))
    expected = source.sha256 or pinned.get("sha256")
    return expected is not None and pinned == {**state, "sha256": expected}


def _read_stamp(stamp: Path) -> dict[str, Any]:
    try:
        read = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
