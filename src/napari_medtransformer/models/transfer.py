"""One file over HTTP into a cache folder, in a thread of its own so that it can be left at any moment."""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from napari_medtransformer.errors import CannotWrite, MedTransformerError, UnreadableWeights
from napari_medtransformer.models.card import WeightsSource

_CHUNK = 1 << 16
_SPARE_BYTES = 50_000_000  # left free on the disk, for the rest of the system
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """How long a server is borne with. attempts: in a row without a byte. backoff_s: doubled after each of them.

    connect_s and read_s: without a word from the server before an attempt counts as failed.
    """

    attempts: int = 5
    backoff_s: float = 0.5
    connect_s: float = 10.0
    read_s: float = 30.0


class _Stopped(Exception):
    """The transfer was told to stop."""


class _Retry(Exception):
    """This attempt failed in a way that another may not."""


class Transfer:
    """A download by pooch whose bytes arrive resumably in `part`. Poll `wait`; `stop` returns at once.

    After `wait` returned True, `error` is None and the file is in place, or says why not.
    """

    def __init__(self, url: str, path: Path, part: Path, source: WeightsSource, patience: Patience) -> None:
        self.url, self.path, self.part, self.source, self.patience = url, path, part, source, patience
        self.tag = part.with_name(part.name + ".etag")
        self.done = part.stat().st_size if part.is_file() else 0
        self.total = source.bytes
        self.message = f"connecting to {urlsplit(url).netloc}"
        self.error: MedTransformerError | None = None
        self._stopped = threading.Event()
        self._finished = threading.Event()
        self._writing = threading.Lock()
        # A daemon: a server that says nothing must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name=f"fetch {source.filename}", daemon=True)

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most that long."""
        return self._finished.wait(seconds)

    def stop(self) -> None:
        """Write nothing from now on and let the thread end as soon as its server lets it."""
        with self._writing:  # not in the middle of a chunk
            self._stopped.set()

    def _run(self) -> None:
        pooch.get_logger().setLevel(logging.WARNING)  # its progress notes would land on the console
        known = None if self.source.sha256 is None else f"sha256:{self.source.sha256}"
        try:
            pooch.retrieve(self.url, known, self.path.name, self.path.parent, downloader=self._download)
        except _Stopped:
            pass
        except MedTransformerError as error:
            self.error = error
        except ValueError:  # pooch's word for a wrong hash; it has removed the file
            self._discard()
            self.error = UnreadableWeights(
                f"{self.url} sent a file whose sha256 is not the published {(self.source.sha256 or '')[:12]}…; "
                "it was removed. Try again, or tell the publisher or the mirror."
            )
        except OSError as error:
            self.error = _cannot_write(self.path, error)
        finally:
            self._finished.set()

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def _download(self, url: str, output_file: str, _pooch: object) -> None:
        """pooch's downloader: fill `part` over as many attempts as it takes, then hand it over."""
        failures = 0
        while True:
            before = self.done
            try:
                self._attempt(url)
                break
            except _Retry as error:
                failures = 1 if self.done > before else failures + 1
                if failures >= self.patience.attempts:
                    raise UnreadableWeights(
                        f"{self.source.filename} could not be fetched: {error}. Fetch {url} on a machine that can, "
                        f"put it into {self.path.parent}, or set MEDT_MIRROR to a mirror."
                    ) from error
                pause = self.patience.backoff_s * 2 ** (failures - 1)
                self.message = f"{error}; trying again in {pause:.1f} s"
                if self._stopped.wait(pause):
                    raise _Stopped from None
        with self._writing:
            self._check_stopped()
            self.part.replace(output_file)
            self.message = f"checking {self.path.name}"
            self.tag.unlink(missing_ok=True)

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise _Stopped

    def _attempt(self, url: str) -> None:
        headers = {"Accept-Encoding": "identity"}  # a resumed gzip stream could not be put together
        tag = self.tag.read_text(encoding="utf-8") if self.tag.is_file() else ""
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
            if tag:
                headers["If-Range"] = tag
        host = urlsplit(url).netloc
        try:
            with requests.get(
                url, headers=headers, stream=True, timeout=(self.patience.connect_s, self.patience.read_s)
            ) as response:
                with self._writing:  # a transfer that was stopped leaves the files to its successor
                    self._check_stopped()
                    has_body = self._accept(response, host)
                if has_body:
                    self._receive(response, host)
        except requests.exceptions.ProxyError as error:
            raise _Retry(f"the proxy {_proxy_of(url)} gives no way to {host}") from error
        except requests.exceptions.Timeout as error:
            raise _Retry(f"{host} did not answer in time") from error
        except requests.exceptions.ConnectionError as error:
            raise _Retry(f"there is no connection to {host}") from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise _Retry(f"the connection to {host} broke") from error
        except requests.exceptions.RequestException as error:
            raise UnreadableWeights(f"{url} cannot be fetched: {error}.") from error

    def _accept(self, response: requests.Response, host: str) -> bool:
        """Read the answer's head; whether a body is to be received."""
        status = response.status_code
        if status in _RETRIED:
            raise _Retry(f"{host} answered {status} {response.reason}")
        if status == 416:  # the part is the whole file already, or of another one
            if response.headers.get("Content-Range") == f"bytes */{self.done}":
                return False
            self._restart()
            raise _Retry(f"{host} has another file than the one begun")
        if status == 407:
            raise UnreadableWeights(
                f"the proxy {_proxy_of(self.url)} wants a name and a password; put them into HTTP_PROXY and "
                "HTTPS_PROXY, as in http://name:password@proxy.example:3128."
            )
        if status not in (200, 206):
            raise UnreadableWeights(f"{response.url} answered {status} {response.reason}; see the model's page.")
        if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {self.done}-"):
            self._restart()
            raise _Retry(f"{host} sent another part than asked for")
        if status == 200 and self.done:
            self._restart()
        length = response.headers.get("Content-Length", "")
        self.total = self.done + int(length) if length.isdigit() else self.source.bytes
        if self.source.bytes is not None and self.total != self.source.bytes:
            self._discard()
            raise UnreadableWeights(
                f"{response.url} is {self.total:,} bytes long, the published file {self.source.bytes:,}; "
                "the publisher or the mirror has replaced it."
            )
        tag = response.headers.get("ETag", "")
        if tag and not tag.startswith("W/"):  # a weak tag may not be used with If-Range
            self.tag.write_text(tag, encoding="utf-8")
        if self.total is not None and self.source.bytes is None:
            check_free_space(self.path.parent, self.total - self.done, self.source.filename)
        return True

    def _restart(self) -> None:
        self._discard()
        self.done = 0

    def _receive(self, response: requests.Response, host: str) -> None:
        self.message = f"fetching {self.source.filename} from {host}"
        with self.part.open("ab") as file:
            for chunk in response.iter_content(_CHUNK):
                with self._writing:
                    self._check_stopped()
                    try:
                        file.write(chunk)
                        file.flush()
                    except OSError as error:
                        raise _cannot_write(self.part, error) from error
                    self.done += len(chunk)
                if self.total is not None and self.done > self.total:
                    self._discard()
                    raise UnreadableWeights(f"{response.url} sends more than the {self.total:,} bytes announced.")
        if self.total is not None and self.done < self.total:
            raise _Retry(f"the connection to {host} broke")


def _proxy_of(url: str) -> str:
    """Host and port of the proxy that the environment names for an address, without a password."""
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
    return urlsplit(proxy).netloc.rpartition("@")[2] or proxy.rpartition("@")[2]


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Raises CannotWrite if the disk of `folder` has not `needed` bytes and a little more."""
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise CannotWrite(
            f"{what} needs {needed / 1e6:,.0f} MB more, but only {free / 1e6:,.0f} MB are free in {folder}; "
            "free some, or set MEDT_CACHE to a folder on another disk."
        )


def _cannot_write(path: Path, error: OSError) -> CannotWrite:
    return CannotWrite(
        f"{path.name} cannot be written into {path.parent}: {error.strerror or error}; "
        "free some space, or set MEDT_CACHE to a folder on another disk."
    )
