"""An object store that goes away for a while, and one that refuses: each answer comes from a server on loopback."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import ObjectStoreError, SpecError
from ecgcohorts.ingest import ingest
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.store.remote.copy import copy_store

pytest.importorskip("obstore", reason="obstore is not installed")


class Answers(BaseHTTPRequestHandler):
    """Gives every request the answer of its server."""

    def do_GET(self) -> None:
        self.server.asked += 1
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A server whose `answer` is a status and a body; `asked` counts the requests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.answer = 0, (200, b"")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "CANARYSECRET",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    server.server_close()


def test_reading_survives_an_outage(make_cohort, tmp_path, bucket_url, door):
    raw = make_cohort(patients=4)
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    copy_store(tmp_path / "s.zarr", f"{bucket_url}/s.zarr")
    store, folder = ec.open(f"{bucket_url}/s.zarr"), ec.open(tmp_path / "s.zarr")
    assert np.array_equal(store.read([0])[0], folder.read([0])[0])
    door.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", door.port))
    threading.Timer(4, door.open).start()
    began = time.monotonic()
    assert np.array_equal(store.read(range(7))[0], folder.read(range(7))[0])
    assert 4 <= time.monotonic() - began < 24


def test_a_write_survives_an_outage(bucket_url, door):
    bucket = Bucket(bucket_url)
    bucket.put("a", b"1")
    door.close()
    threading.Timer(4, door.open).start()
    assert bucket.put_new("b", b"2")
    assert bucket.sizes() == {"a": 1, "b": 1}


def test_an_outage_that_lasts_is_told_with_the_time_that_was_tried(bucket_url, door, monkeypatch):
    monkeypatch.setenv("ECGCOHORTS_RETRY_SECONDS", "3")
    bucket = Bucket(bucket_url)
    door.close()
    began = time.monotonic()
    with pytest.raises(ObjectStoreError, match=r"does not answer \(GenericError\); tried for 3 s.*when it is up again"):
        bucket.get("x")
    assert 2 < time.monotonic() - began < 8


def test_a_server_in_trouble_is_asked_again(answering, monkeypatch):
    answering.answer = (503, b"")
    bucket = Bucket("s3://bucket")
    threading.Timer(3, lambda: setattr(answering, "answer", (404, b""))).start()
    with pytest.raises(FileNotFoundError):
        bucket.get("x")
    assert answering.asked > 3
    answering.answer, answering.asked = (503, b""), 0
    monkeypatch.setenv("ECGCOHORTS_RETRY_SECONDS", "0")
    with pytest.raises(ObjectStoreError, match=r"does not answer .*503"):
        Bucket("s3://bucket").get("x")
    assert answering.asked == 1


@pytest.mark.parametrize(("status", "code"), [(403, "SignatureDoesNotMatch"), (401, "ExpiredToken")])
def test_a_refusal_is_told_at_once_and_apart_from_an_outage(answering, status, code):
    answering.answer = (status, f"<Error><Code>{code}</Code><Message>CANARY</Message></Error>".encode())
    began = time.monotonic()
    with pytest.raises(ObjectStoreError, match=f"refuses the credentials .*{status} {code}.*Check them") as caught:
        Bucket("s3://bucket").get("x")
    assert time.monotonic() - began < 2
    assert answering.asked == 1
    assert "CANARY" not in str(caught.value)


def test_missing_credentials_are_told(answering, monkeypatch):
    # The machine's cloud is asked for some then; here the same server stands for the cloud's.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", os.environ["AWS_ENDPOINT_URL"])
    answering.answer = (404, b"")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ObjectStoreError, match=r"found no credentials for it .*AWS_ACCESS_KEY_ID"):
        Bucket("s3://bucket").get("x")


@pytest.mark.parametrize("wrong", ["soon", "-1", "nan", "1e9", ""])
def test_a_wrong_number_of_seconds_is_refused(monkeypatch, wrong):
    monkeypatch.setenv("ECGCOHORTS_RETRY_SECONDS", wrong)
    with pytest.raises(SpecError, match=r"ECGCOHORTS_RETRY_SECONDS: found .*expected seconds, from 0"):
        Bucket("s3://bucket")
