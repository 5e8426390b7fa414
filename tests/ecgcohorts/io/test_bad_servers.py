"""An object store that lists without an end, or never answers, ends a command with one line that says which."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import ecgcohorts as ec
from ecgcohorts.errors import ObjectStoreError
from ecgcohorts.io import buckets
from ecgcohorts.io.buckets import Bucket

pytest.importorskip("obstore", reason="obstore is not installed")

_PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><KeyCount>100</KeyCount><MaxKeys>100</MaxKeys>
<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>{contents}</ListBucketResult>"""
_OBJECT = (
    "<Contents><Key>{name}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>&quot;a&quot;</ETag>"
    "<Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any], None]], str]]:
    """Start a server on loopback that answers every GET by a function; return a URL below it."""
    servers = []

    def start(answer: Callable[[Any], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, value)
        return "s3://b/s.zarr"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _pages(names: Callable[[int], str]) -> tuple[Callable[[Any], None], list[int]]:
    asked = [0]

    def answer(request: Any) -> None:
        contents = "".join(_OBJECT.format(name=names(100 * asked[0] + place)) for place in range(100))
        asked[0] += 1
        body = _PAGE.format(contents=contents).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/xml")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer, asked


@pytest.mark.parametrize("use", [lambda url: Bucket(url).sizes(), lambda url: list(Bucket(url).names())])
def test_a_listing_that_begins_again_and_again_is_ended(serve, use):
    answer, asked = _pages(lambda number: f"s.zarr/{number % 300:06d}")
    url = serve(answer)
    began = time.process_time()
    with pytest.raises(ObjectStoreError, match=r"the listing does not end \(found the same objects again\)") as caught:
        use(url)
    assert time.process_time() - began < 1
    assert asked[0] < 10
    assert "credentials" not in str(caught.value)


def test_a_listing_of_ever_new_names_is_ended_too(serve, monkeypatch):
    monkeypatch.setattr(buckets, "_MOST_OBJECTS", 1000)
    answer, asked = _pages(lambda number: f"s.zarr/{number:09d}")
    with pytest.raises(ObjectStoreError, match="found more than 1000 objects"):
        Bucket(serve(answer)).sizes()
    assert asked[0] < 20


@pytest.mark.slow  # thirty seconds
def test_a_server_that_never_answers_is_told_from_one_that_refuses(serve, monkeypatch):
    monkeypatch.setenv("ECGCOHORTS_RETRY_SECONDS", "3")
    # obstore waits 30 s for an answer; its option for that would overrule AWS_ALLOW_HTTP of the environment.
    silent = serve(lambda request: time.sleep(100))
    began = time.monotonic()
    with pytest.raises(ObjectStoreError, match=r"does not answer .*tried for 3 s"):
        ec.open(silent)
    assert time.monotonic() - began < 60
    refusing = serve(lambda request: request.send_error(403))
    with pytest.raises(ObjectStoreError, match="refuses the credentials"):
        ec.open(refusing)
