"""Weights that are fetched or checked while the window goes on: progress, cancel, resume, and what is said."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_pickers import PATIENCE_MS, select

from napari_medtransformer.models import WeightsSource, registry
from napari_medtransformer.models.card import BUNDLED
from napari_medtransformer.models.download import fetch_weights, is_checked, is_on_disk
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.models.settings import Settings, write_settings
from napari_medtransformer.progress import run_to_end

WEIGHTS = (BUNDLED / "medt-click-tiny.safetensors").read_bytes()


class Server:
    """Serves the bundled weights slowly enough to be watched, with ranges."""

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        self.delay_s = 0.05
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.ranges.append(wanted)
                start = int(wanted[6:-1]) if wanted else 0
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(WEIGHTS) - start))
                self.send_header("ETag", '"one"')
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}")
                self.end_headers()
                for at in range(start, len(WEIGHTS), 1 << 19):
                    time.sleep(outer.delay_s)
                    try:
                        self.wfile.write(WEIGHTS[at : at + (1 << 19)])
                    except OSError:
                        return

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and a model called remote-click whose weights it has."""
    server = Server()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{server.http.server_port}/click.safetensors"
    source = WeightsSource(address, "click.safetensors", hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))
    registry.register(dataclasses.replace(find_card("medt-click-tiny"), name="remote-click", weights=source))
    yield server
    registry.unregister("remote-click")
    server.close()


@pytest.mark.alone
def test_a_download_shows_progress_is_cancelled_and_resumed_while_clicks_are_answered(
    open_picker, torso, liver, click_model, remote: Server, tmp_path: Path
) -> None:
    desk, picker = open_picker(torso(), model=click_model)
    select(picker, "remote-click")
    assert picker.fetch.isVisible()
    assert picker.fetch.text() == f"Download {len(WEIGHTS) / 1e6:.0f} MB"
    remote.delay_s = 0.4
    picker.fetch.click()
    desk.qtbot.waitUntil(lambda: picker.progress.isVisible() and picker.progress.value() > 50, timeout=PATIENCE_MS)
    remote.delay_s = 3  # however long the click takes on a busy machine
    desk.show(liver)
    desk.prompt(liver)  # the worker that answers is another one
    desk.wait()
    assert desk.controller.session.labels[liver] == 1
    assert picker.slot.downloads.progress("remote-click") is not None
    begun = time.monotonic()
    picker.cancel.click()
    desk.qtbot.waitUntil(lambda: picker.slot.downloads.progress("remote-click") is None, timeout=PATIENCE_MS)
    assert time.monotonic() - begun < 2
    part = tmp_path / "weights" / "click.safetensors.part"
    come = part.stat().st_size
    assert 0 < come < len(WEIGHTS)
    assert picker.fetch.text().startswith("Resume")
    remote.delay_s = 0
    picker.fetch.click()
    desk.qtbot.waitUntil(lambda: is_on_disk(find_card("remote-click")), timeout=PATIENCE_MS)
    desk.qtbot.waitUntil(lambda: not picker.progress.isVisible(), timeout=PATIENCE_MS)
    assert remote.ranges[-1] == f"bytes={come}-"
    item = picker.list.tree.topLevelItem(picker.list.names.index("remote-click"))
    assert item.text(2) == "here"
    assert (tmp_path / "weights" / "click.safetensors").read_bytes() == WEIGHTS


def test_choosing_a_model_that_is_not_here_fetches_it_and_then_uses_it(open_picker, remote: Server) -> None:
    desk, picker = open_picker()
    select(picker, "remote-click")
    assert picker.use.text() == "Download and use"
    picker.use.click()
    slot = desk.controller.models
    assert slot.loading
    desk.qtbot.waitUntil(lambda: f"of {len(WEIGHTS) / 1e6:.0f} MB" in slot.fetching, timeout=PATIENCE_MS)
    desk.qtbot.waitUntil(lambda: slot.model is not None, timeout=PATIENCE_MS)
    assert slot.model.card.name == "remote-click"
    assert slot.fetching == ""


def test_a_cancelled_download_leaves_the_slot_with_a_reason(open_picker, remote: Server) -> None:
    desk, picker = open_picker()
    remote.delay_s = 0.3
    desk.controller.models.load("remote-click")
    select(picker, "remote-click")
    desk.qtbot.waitUntil(lambda: picker.cancel.isVisible(), timeout=PATIENCE_MS)
    picker.cancel.click()
    desk.qtbot.waitUntil(lambda: not desk.controller.models.loading, timeout=PATIENCE_MS)
    assert "was cancelled" in desk.controller.models.fault


def test_a_download_that_fails_says_why_in_the_window(open_picker, remote: Server, notifications) -> None:
    desk, picker = open_picker()
    write_settings(Settings(offline=True))
    select(picker, "remote-click")
    picker.fetch.click()
    desk.qtbot.waitUntil(lambda: "switched off" in picker.message.text(), timeout=PATIENCE_MS)
    assert any("switched off" in heard.message for heard in notifications)
    assert picker.fetch.isVisible()


@pytest.fixture
def large(remote: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of remote-click put into the cache by hand, as if it took long to hash."""
    monkeypatch.setattr("napari_medtransformer.models.download._CHUNK", 1 << 12)
    path = tmp_path / "weights" / "click.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    return path


def test_a_file_that_is_here_is_checked_with_progress_before_it_is_loaded(open_picker, remote: Server, large) -> None:
    desk, _ = open_picker()
    slot, card = desk.controller.models, find_card("remote-click")
    assert is_on_disk(card)
    assert not is_checked(card)
    said: list[str] = []
    slot.changed.connect(lambda: said.append(slot.fetching))
    slot.load("remote-click")
    desk.qtbot.waitUntil(lambda: slot.model is not None, timeout=PATIENCE_MS)
    size = f"{len(WEIGHTS) / 1e6:.0f} MB"
    assert any(line.startswith("Checking remote-click: ") and f"of {size}" in line for line in said)
    assert remote.ranges == []
    assert is_checked(card)
    said.clear()
    slot.set_plan("cpu", "float32")  # loaded anew, and not hashed again
    desk.qtbot.waitUntil(lambda: slot.model is not None, timeout=PATIENCE_MS)
    assert not any(said)


def test_a_check_is_cancelled_at_once_and_begun_again(open_picker, remote: Server, large) -> None:
    desk, picker = open_picker()
    slot = desk.controller.models
    select(picker, "remote-click")
    slot.load("remote-click")
    desk.qtbot.waitUntil(lambda: picker.cancel.isVisible(), timeout=PATIENCE_MS)
    picker.cancel.click()
    desk.qtbot.waitUntil(lambda: not slot.loading, timeout=PATIENCE_MS)
    assert "was cancelled before its weights were here and checked" in slot.fault
    assert not is_checked(find_card("remote-click"))
    slot.load("remote-click")
    desk.qtbot.waitUntil(lambda: slot.model is not None, timeout=PATIENCE_MS)


def test_a_file_that_is_not_the_published_one_is_told(open_picker, remote: Server, large, notifications) -> None:
    large.write_bytes(WEIGHTS[:-1] + b"?")
    desk, _ = open_picker()
    desk.controller.models.load("remote-click")
    desk.qtbot.waitUntil(lambda: bool(desk.controller.models.fault), timeout=PATIENCE_MS)
    assert "is not the published file" in desk.controller.models.fault
    assert any("is not the published file" in heard.message for heard in notifications)


def test_a_file_that_was_written_anew_is_checked_again(remote: Server, large) -> None:
    card = find_card("remote-click")
    run_to_end(fetch_weights(card))
    assert is_checked(card)
    large.write_bytes(WEIGHTS)
    assert not is_checked(card)
    large.unlink()
    assert not is_checked(card)
    assert is_checked(find_card("medt-click-tiny"))  # bundled: nothing to check
