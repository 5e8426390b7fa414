"""Fixtures shared by all tests."""

import logging
import os
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

# `victims`, `guard` and the other helpers that attack readers: pytest's importlib mode has no import by name for them.
sys.path.append(str(Path(__file__).parent / "fuzz"))

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real recordings beside the checkout; the test skips, saying so, where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no real recordings at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    """A server on loopback that speaks S3, in a thread of this process."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed", exc_type=ImportError)
    pytest.importorskip("obstore", reason="obstore is not installed")
    try:
        server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for every request
    except (OSError, RuntimeError) as error:
        pytest.skip(f"no server on loopback can be started ({type(error).__name__})")
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket_url(_s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """`s3://...`: an empty bucket on a real S3 server, and the environment of this process set for it."""
    settings = {
        "AWS_ENDPOINT_URL": _s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{abs(hash(request.node.nodeid)):x}"
    urllib.request.urlopen(urllib.request.Request(f"{_s3_server}/{name}", method="PUT")).close()
    return f"s3://{name}"


class Door:
    """Forwards a port of this machine to a server, until it is closed: then nobody listens there, as in an outage."""

    def __init__(self, server: str) -> None:
        host, _, port = server.removeprefix("http://").partition(":")
        self.server, self.port = (host, int(port)), 0
        self.lock = threading.Lock()
        self.open()

    def open(self) -> None:
        self.live: list[socket.socket] = []
        # The port of the first opening, and a server that restarts takes its port at once.
        self.listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def close(self) -> None:
        # Shut down first: a thread that waits in `accept` keeps a merely closed socket listening.
        with self.lock:  # whoever is let in now would be forgotten
            ends, self.live = [self.listener, *self.live], []
            for one in ends:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.server)
            with self.lock:
                is_open = listener is self.listener and listener.fileno() >= 0
                self.live += [client, server] if is_open else []
            if not is_open:
                client.close()
                server.close()
                return
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def door(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    made = Door(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    yield made
    made.close()
