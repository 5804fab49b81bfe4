"""Weights through a real proxy on loopback: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, and the mirror beside them."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.models import ModelCard, WeightsSource
from napari_medtransformer.models.download import fetch_weights
from napari_medtransformer.models.registry import find_card
from napari_medtransformer.models.transfer import Patience
from napari_medtransformer.progress import run_to_end

CONTENT = bytes(range(256)) * 2048  # 0.5 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=2, backoff_s=0.01, connect_s=5.0, read_s=5.0)
HOST = "weights.invalid"  # no name server knows it: only a proxy finds the way there


class Publisher(http.server.BaseHTTPRequestHandler):
    """Serves the file at any path."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Traffic:
    """What a proxy was asked, and where it leads every request. refuses: the status it answers instead."""

    port: int = 0
    target: int = 0
    asked: list[str] = field(default_factory=list)
    passwords: list[str | None] = field(default_factory=list)
    refuses: int = 0


class Proxy(http.server.BaseHTTPRequestHandler):
    """Forwards plain requests and tunnels encrypted ones, whatever host they name, to a port of this machine."""

    traffic: Traffic

    def do_GET(self) -> None:
        if self._told():
            return
        there = http.client.HTTPConnection("127.0.0.1", self.traffic.target, timeout=5)
        there.request("GET", urlsplit(self.path).path)
        answer = there.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        there.close()

    def do_CONNECT(self) -> None:
        if self._told():
            return
        with socket.create_connection(("127.0.0.1", self.traffic.target), timeout=5) as there:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: there, there: self.connection}
            while True:
                ready, _, _ = select.select(list(ends), [], [], 5)
                for one in ready:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    ends[one].sendall(data)
                if not ready:
                    return

    def _told(self) -> bool:
        self.traffic.asked.append(f"{self.command} {self.path}")
        self.traffic.passwords.append(self.headers.get("Proxy-Authorization"))
        if self.traffic.refuses:
            self.send_error(self.traffic.refuses)
        return bool(self.traffic.refuses)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server's port for as long as the block lasts."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxies_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "MEDT_MIRROR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def asked() -> list[str]:
    """The paths that the publisher was asked for."""
    return []


@pytest.fixture
def publisher(asked: list[str]) -> Iterator[int]:
    with serving(type("ThisPublisher", (Publisher,), {"asked": asked})) as port:
        yield port


@pytest.fixture
def proxy(publisher: int) -> Iterator[Traffic]:
    traffic = Traffic(target=publisher)
    with serving(type("ThisProxy", (Proxy,), {"traffic": traffic})) as port:
        traffic.port = port
        yield traffic


def fetch(url: str) -> Path:
    source = WeightsSource(url, "tiny.pth", SHA256, len(CONTENT))
    card: ModelCard = replace(find_card("sam-vit-b"), weights=source)
    return run_to_end(fetch_weights(card, QUICK))


def test_http_proxy_is_asked_for_a_host_that_only_it_can_find(
    proxy: Traffic, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert fetch(f"http://{HOST}/published/tiny.pth").read_bytes() == CONTENT
    assert proxy.asked == [f"GET http://{HOST}/published/tiny.pth"]
    assert asked == ["/published/tiny.pth"]


def test_a_proxy_s_name_and_password_are_sent(proxy: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://reader:secret@127.0.0.1:{proxy.port}")
    fetch(f"http://{HOST}/tiny.pth")
    assert proxy.passwords == ["Basic cmVhZGVyOnNlY3JldA=="]  # base64 of reader:secret


def test_https_proxy_tunnels_an_encrypted_connection(
    proxy: Traffic, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={HOST} -addext subjectAltName=DNS:{HOST}"
    try:
        subprocess.run(
            [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("needs the openssl command to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    with serving(type("SecurePublisher", (Publisher,), {"asked": asked}), context) as port:
        proxy.target = port
        assert fetch(f"https://{HOST}/published/tiny.pth").read_bytes() == CONTENT
    assert proxy.asked == [f"CONNECT {HOST}:443"]  # it sees where to, and nothing else
    assert asked == ["/published/tiny.pth"]


@pytest.mark.parametrize("listed", ["127.0.0.1", "other.example,127.0.0.1", "*"])
def test_no_proxy_leaves_the_proxy_out(
    proxy: Traffic, publisher: int, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", listed)
    assert fetch(f"http://127.0.0.1:{publisher}/tiny.pth").read_bytes() == CONTENT
    assert proxy.asked == []


def test_the_mirror_is_asked_through_the_proxy(
    proxy: Traffic, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("MEDT_MIRROR", f"http://mirror.{HOST}/kept")
    fetch("https://publisher.example/published/tiny.pth?download=1")
    assert proxy.asked == [f"GET http://mirror.{HOST}/kept/published/tiny.pth?download=1"]
    assert asked == ["/kept/published/tiny.pth"]


def test_a_mirror_that_no_proxy_names_is_asked_directly(
    proxy: Traffic, publisher: int, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("MEDT_MIRROR", f"http://127.0.0.1:{publisher}")
    fetch("https://publisher.example/published/tiny.pth")
    assert proxy.asked == []
    assert asked == ["/published/tiny.pth"]


def test_a_proxy_that_is_not_there_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://reader:secret@127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(UnreadableWeights, match=r"the proxy 127\.0\.0\.1:9 gives no way to weights\.invalid") as caught:
        fetch(f"https://{HOST}/tiny.pth")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_proxy_that_wants_a_password_says_how_to_give_it(proxy: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.refuses = 407
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(UnreadableWeights, match=rf"127\.0\.0\.1:{proxy.port} wants a name and a password.*HTTP_PROXY"):
        fetch(f"http://{HOST}/tiny.pth")
    assert len(proxy.asked) == 1
