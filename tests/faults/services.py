"""What commands talk to: a Dask scheduler with two workers, and a server that speaks S3, each a process on loopback."""

import os
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

BUCKET = "soak"
# Both end with the process that started them: it holds the other end of their standard input.
_DASK = """
import os, signal, sys, time
from distributed import LocalCluster, Status

def ready():
    return [one for one in cluster.workers.values() if one.status == Status.running and one.pid]

with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster:
    print(cluster.scheduler_address, flush=True)
    for which in sys.stdin:
        if which.strip():
            # Not one that is starting: Dask does not replace a worker that dies before it has joined.
            workers = ready()
            if workers:
                os.kill(workers[int(float(which) * len(workers))].pid, signal.SIGKILL)
        else:
            since = time.monotonic()
            while len(ready()) < 2 or len(cluster.scheduler.workers) < 2:
                time.sleep(0.05)
                # On a busy machine a new worker may be given up before it has joined, and Dask starts no other.
                if time.monotonic() - since > 30:
                    cluster.scale(0)
                    cluster.scale(2)
                    since = time.monotonic()
        print("done", flush=True)
"""
_S3 = """
import logging, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
logging.getLogger("werkzeug").setLevel(logging.ERROR)
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


class _Service:
    """A process that first prints its address, and then answers every line that it reads with one."""

    def __init__(self, code: str) -> None:
        command = [sys.executable, "-c", code]
        # It logs every worker that dies and every connection of a client that does: that is what is wanted here.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.address = self._answer()
        assert "://" in self.address, f"found {self.address!r}, expected the address of a service"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Cluster(_Service):
    """A Dask scheduler and two worker processes, which it replaces when they die. For one process at a time to talk to."""

    def wait(self) -> None:
        """Wait until both workers are there."""
        self.ask("")

    def kill_worker(self, which: float) -> None:
        """SIGKILL to one of the workers; which: from 0 to below 1."""
        self.ask(str(which))


@contextmanager
def cluster() -> Iterator[Cluster]:
    service = Cluster(_DASK)
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def bucket() -> Iterator[str]:
    """`s3://...` of an empty bucket; the environment of this process, and of those it starts, is set for it."""
    server = _Service(_S3)
    os.environ |= {
        "AWS_ENDPOINT_URL": server.address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    try:
        urllib.request.urlopen(urllib.request.Request(f"{server.address}/{BUCKET}", method="PUT")).close()
        yield f"s3://{BUCKET}"
    finally:
        server.stop()


def objects(prefix: str) -> dict[str, str]:
    """The objects below a prefix of the bucket, each by the MD5 that the server computes of what it has."""
    address = f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}?list-type=2&prefix={quote(prefix)}"
    with urllib.request.urlopen(address) as answer:
        root = ET.fromstring(answer.read())
    assert root.findtext("{*}IsTruncated") == "false"
    found = {str(one.findtext("{*}Key")): str(one.findtext("{*}ETag")) for one in root.iterfind("{*}Contents")}
    return {name.removeprefix(prefix): tag for name, tag in found.items()}
