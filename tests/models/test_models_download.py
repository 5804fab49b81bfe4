"""Downloads from a real HTTP server on loopback that breaks, lies, stalls and comes back."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from napari_medtransformer.errors import CannotWrite, UnreadableWeights
from napari_medtransformer.models import ModelCard, WeightsSource
from napari_medtransformer.models.download import fetch_weights
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.models.transfer import Patience
from napari_medtransformer.progress import Progress, run_to_end

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=4, backoff_s=0.01, connect_s=2.0, read_s=2.0)


@dataclass
class Faults:
    """What the server does wrong, and what it was asked."""

    statuses: list[int] = field(default_factory=list)  # answered first, one per request
    cut_after: list[int] = field(default_factory=list)  # bytes of the body after which the connection is cut
    stall_after: int | None = None  # bytes of the body after which nothing more comes
    ranges: bool = True
    content: bytes = CONTENT
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    delay_s: float = 0.0
    released: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, with Range, in small pieces."""

    faults: Faults

    def do_GET(self) -> None:
        faults = self.faults
        wanted = self.headers.get("Range")
        faults.requests.append((self.path, wanted))
        if faults.statuses:
            self.send_error(faults.statuses.pop(0))
            return
        start = int(re.findall(r"bytes=(\d+)-", wanted)[0]) if wanted and faults.ranges else 0
        if start >= len(faults.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(faults.content)}")
            self.end_headers()
            return
        body = faults.content[start:]
        self.send_response(206 if wanted and faults.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.md5(faults.content).hexdigest()}"')
        if wanted and faults.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(faults.content) - 1}/{len(faults.content)}")
        self.end_headers()
        cut = faults.cut_after.pop(0) if faults.cut_after else None
        for at in range(0, len(body), 1 << 15):
            if cut is not None and at >= cut:
                self.connection.close()
                return
            if faults.stall_after is not None and at >= faults.stall_after:
                faults.released.wait(30)
                return
            time.sleep(faults.delay_s)
            try:
                self.wfile.write(body[at : at + (1 << 15)])
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """A server for the length of a test; the cache is an empty folder, the mirror points to the server."""
    faults = Faults()
    handler = type("ThisHandler", (Handler,), {"faults": faults})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDT_MIRROR", f"http://127.0.0.1:{server.server_port}/mirror/")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield faults
    faults.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def card() -> ModelCard:
    source = WeightsSource("https://weights.invalid/published/tiny.pth", "tiny.pth", SHA256, len(CONTENT))
    return replace(find_card("sam-vit-b"), weights=source)


def without(card: ModelCard, **changes: object) -> ModelCard:
    """The card with another source."""
    assert isinstance(card.weights, WeightsSource)
    return replace(card, weights=replace(card.weights, **changes))


def fetch(card: ModelCard, patience: Patience = QUICK) -> Path:
    return run_to_end(fetch_weights(card, patience))


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_weights_are_fetched_from_the_mirror_once(faults: Faults, card: ModelCard, tmp_path: Path) -> None:
    steps: list[Progress] = []
    path = run_to_end(fetch_weights(card, QUICK), steps.append)
    assert path == tmp_path / "cache" / "tiny.pth"
    assert path.read_bytes() == CONTENT
    assert faults.requests == [("/mirror/published/tiny.pth", None)]
    assert steps[-1].done == len(CONTENT)
    assert fetch(card) == path
    assert len(faults.requests) == 1
    assert left_in(path.parent) == {"tiny.pth", "tiny.pth.sha256"}


def test_a_broken_connection_is_resumed_where_it_broke(faults: Faults, card: ModelCard) -> None:
    faults.cut_after = [300_000, 200_000]
    assert fetch(card).read_bytes() == CONTENT
    starts = [int(wanted[6:-1]) for _, wanted in faults.requests if wanted]
    assert len(faults.requests) == 3
    assert 0 < starts[0] < starts[1] < len(CONTENT)


def test_a_cancelled_download_is_resumed_by_the_next(faults: Faults, card: ModelCard, tmp_path: Path) -> None:
    faults.delay_s = 0.02
    steps = fetch_weights(card, QUICK)
    for step in steps:
        if isinstance(step, Progress) and step.done > 200_000:
            break
    steps.close()
    part = tmp_path / "cache" / "tiny.pth.part"
    come = part.stat().st_size
    assert 0 < come < len(CONTENT)
    time.sleep(0.1)
    assert part.stat().st_size == come  # the thread that is left behind writes nothing more
    faults.delay_s = 0
    assert fetch(card).read_bytes() == CONTENT
    assert faults.requests[-1][1] == f"bytes={come}-"


def test_a_server_that_cannot_resume_sends_all_again(faults: Faults, card: ModelCard) -> None:
    faults.ranges, faults.cut_after = False, [300_000]
    assert fetch(card).read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(faults: Faults, card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tiny.pth.part").write_bytes(CONTENT)
    assert fetch(card).read_bytes() == CONTENT
    assert faults.requests == [("/mirror/published/tiny.pth", f"bytes={len(CONTENT)}-")]


def test_server_errors_are_retried(faults: Faults, card: ModelCard) -> None:
    faults.statuses = [503, 500, 429]
    assert fetch(card).read_bytes() == CONTENT
    assert len(faults.requests) == 4


def test_a_server_that_stays_broken_is_told_with_what_to_do(faults: Faults, card: ModelCard) -> None:
    faults.statuses = [503] * 9
    with pytest.raises(UnreadableWeights, match=r"answered 503.*tiny\.pth on a machine that can.*cache.*MEDT_MIRROR"):
        fetch(card)
    assert len(faults.requests) == QUICK.attempts


def test_a_missing_file_is_not_asked_for_again(faults: Faults, card: ModelCard) -> None:
    faults.statuses = [404]
    with pytest.raises(UnreadableWeights, match=r"tiny\.pth answered 404 Not Found"):
        fetch(card)
    assert len(faults.requests) == 1


def test_a_wrong_hash_is_refused_and_removed(faults: Faults, card: ModelCard, tmp_path: Path) -> None:
    faults.content = CONTENT[:-1] + b"!"
    with pytest.raises(UnreadableWeights, match=rf"not the published {SHA256[:12]}.*removed"):
        fetch(card)
    assert left_in(tmp_path / "cache") == set()
    faults.content = CONTENT
    assert fetch(card).read_bytes() == CONTENT


def test_a_file_of_another_length_is_refused_before_it_is_received(
    faults: Faults, card: ModelCard, tmp_path: Path
) -> None:
    faults.content = CONTENT * 2
    with pytest.raises(UnreadableWeights, match=r"2,097,152 bytes long, the published file 1,048,576"):
        fetch(card)
    assert left_in(tmp_path / "cache") == set()


def test_a_file_put_there_by_hand_is_used_offline_and_checked(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path))
    (tmp_path / "tiny.pth").write_bytes(CONTENT)
    assert fetch(card) == tmp_path / "tiny.pth"
    (tmp_path / "tiny.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(UnreadableWeights, match=r"not the published file.*delete it"):
        fetch(card)


def test_without_a_published_hash_the_first_download_s_is_pinned(
    faults: Faults, card: ModelCard, tmp_path: Path
) -> None:
    unpinned = without(card, sha256=None)
    path = fetch(unpinned)
    stamp = json.loads((tmp_path / "cache" / "tiny.pth.sha256").read_text())
    assert stamp["sha256"] == SHA256
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(UnreadableWeights, match=r"tiny\.pth\.sha256"):
        fetch(unpinned)


@pytest.mark.alone
def test_a_stalled_server_is_left_within_a_second(faults: Faults, card: ModelCard) -> None:
    faults.stall_after = 100_000
    steps = fetch_weights(card, replace(QUICK, read_s=30))
    last = time.monotonic()
    for step in steps:
        assert time.monotonic() - last < 1  # it can be cancelled at any yield, so yields must not be far apart
        last = time.monotonic()
        if isinstance(step, Progress) and step.done >= 90_000:
            break
    begun = time.monotonic()
    steps.close()
    assert time.monotonic() - begun < 1


def test_a_server_that_says_nothing_is_given_up(faults: Faults, card: ModelCard) -> None:
    faults.stall_after = 0
    with pytest.raises(UnreadableWeights, match=r"did not answer in time|no connection"):
        fetch(card, Patience(attempts=2, backoff_s=0.01, read_s=0.2))


def test_no_network_is_told_in_one_line_with_what_to_do(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path))
    monkeypatch.setenv("MEDT_MIRROR", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(UnreadableWeights, match=r"no connection to 127\.0\.0\.1:9.*put it into.*MEDT_MIRROR") as caught:
        fetch(card)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_mirror_that_is_no_address_is_refused(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path))
    monkeypatch.setenv("MEDT_MIRROR", "mirror.example")
    with pytest.raises(UnreadableWeights, match=r"MEDT_MIRROR is 'mirror\.example'"):
        fetch(card)


def test_too_little_space_is_told_before_anything_is_asked(faults: Faults, card: ModelCard) -> None:
    with pytest.raises(CannotWrite, match=r"needs .* MB more, but only .* MB are free.*MEDT_CACHE"):
        fetch(without(card, bytes=10**18))
    assert faults.requests == []


FETCH = """
    import resource, signal, sys
    from dataclasses import replace
    from napari_medtransformer.errors import MedTransformerError
    from napari_medtransformer.models import WeightsSource
    from napari_medtransformer.models.download import fetch_weights
    from napari_medtransformer.models.registry import find_card
    from napari_medtransformer.progress import run_to_end
    if {limit}:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    source = WeightsSource("https://weights.invalid/published/tiny.pth", "tiny.pth", {sha!r}, {bytes})
    try:
        print(run_to_end(fetch_weights(replace(find_card("sam-vit-b"), weights=source))).name)
    except MedTransformerError as error:
        print(type(error).__name__, error)
"""


def start_process(limit: int = 0) -> subprocess.Popen[str]:
    """Fetch in another process, whose files may not grow beyond `limit` bytes."""
    code = textwrap.dedent(FETCH).format(limit=limit, sha=SHA256, bytes=len(CONTENT))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ.copy())


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_disk_that_fills_during_the_download_is_told(faults: Faults, tmp_path: Path) -> None:
    out, _ = start_process(limit=300_000).communicate(timeout=60)
    assert re.match(r"CannotWrite tiny\.pth\.part cannot be written into .*File too large.*MEDT_CACHE", out)
    assert not (tmp_path / "cache" / "tiny.pth").exists()


def test_two_processes_fetch_once(faults: Faults) -> None:
    faults.delay_s = 0.03  # a second for the whole file, so that both are at it together
    processes = [start_process(), start_process()]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["tiny.pth", "tiny.pth"]
    assert len(faults.requests) == 1


def test_a_process_that_dies_leaves_no_lock(faults: Faults, card: ModelCard, tmp_path: Path) -> None:
    faults.stall_after = 200_000
    process = start_process()
    part = tmp_path / "cache" / "tiny.pth.part"
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    faults.stall_after = None
    assert fetch(card).read_bytes() == CONTENT
    assert faults.requests[-1][1] is not None  # resumed what the dead process had
