"""The process in which readers that call C libraries run. It answers the requests of one parent until that ends.

It limits itself: address space, no core file, and processor time per recording, which ends it even where the parent is
gone and C code never returns. Systems without `resource` (Windows) have none of these limits.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from ecgcohorts import plugins
from ecgcohorts.readers import KIND
from ecgcohorts.readers._isolated.wire import MAX_RECORDINGS, Garbled, Reply, pack, unpack_header
from ecgcohorts.recording import Recording

MEMORY_BYTES = 2 << 30  # of address space; design limit per worker
# A reply holds one recording, or as many small ones as these allow (our defaults): a scan sends its headers in batches.
BATCH_BYTES = 64 << 10
BATCH_SECONDS = 0.005


class _Stream:
    """One call of read or scan, continued from request to request."""

    def __init__(self, request: dict[str, Any]) -> None:
        reader = plugins.load(KIND, request["reader"])
        if request["arrays"] is not None:
            from ecgcohorts.readers.arrays.description import ArrayDescription  # pydantic takes a while

            reader = reader.described(ArrayDescription.model_validate_json(request["arrays"]))
        path, entries, self.skip = Path(request["path"]), request["entries"], request["skip"]
        # A new process that replaces a dead one goes on behind `skip` recordings: those were given already.
        self.left = None  # recordings until the call is over, where that is known
        if entries is not None:
            entries, self.skip = entries[self.skip :], 0
            self.left = len(entries)
        call = reader.scan(path) if request["call"] == "scan" else reader.read(path, entries)
        self.recordings: Iterator[Recording] = iter(call)

    def batch(self) -> tuple[list[Recording], bool, Exception | None]:
        """Return the next recordings, whether the call is over, and the error that ended it."""
        found: list[Recording] = []
        size, start = 0, time.monotonic()
        try:
            for _ in islice(self.recordings, self.skip):
                pass
            self.skip = 0
            while size < BATCH_BYTES and len(found) < MAX_RECORDINGS and time.monotonic() < start + BATCH_SECONDS:
                found.append(next(self.recordings))
                size += sum(array.nbytes for array in (found[-1].digital, found[-1].analog_mv) if array is not None)
                if self.left is not None:
                    self.left -= 1
                    if not self.left:
                        self.close()
                        return found, True, None
        except StopIteration:
            return found, True, None
        except Exception as error:
            return found, True, error
        return found, False, None

    def close(self) -> None:
        """Let the reader close its file."""
        close = getattr(self.recordings, "close", None)
        if close is not None:
            close()


def main() -> None:
    """Answer requests on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end ends this process
    requests, replies = _take_pipes()
    _limit_memory()
    threading.Thread(target=_end_with_parent, args=(requests.fileno(),), daemon=True).start()
    streams: dict[int, _Stream] = {}
    _send(replies, {"ready": True}, [])
    while (request := _receive(requests)) is not None:
        if request["do"] == "close":
            for number in request["streams"]:
                with suppress(Exception):
                    streams.pop(number).close()
            _send(replies, {"ready": True}, [])
            continue
        _limit_processor_time(request["seconds"])
        _answer(request, streams, replies)


def _answer(request: dict[str, Any], streams: dict[int, _Stream], replies: BinaryIO) -> None:
    number = request["stream"]
    try:
        if request["do"] == "open":
            if request["folder"] is not None:
                os.chdir(request["folder"])
            streams[number] = _Stream(request)
        found, over, error = streams[number].batch()
        reply = Reply(tuple(found), 0 if over else number, error).pack()
    except Exception as unforeseen:
        over, reply = True, Reply((), 0, unforeseen).pack()
    if over:
        streams.pop(number, None)
    _send(replies, *reply)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Give our two pipes numbers of their own: what a C library prints must not end up between the frames."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process
    return open(requests, "rb", closefd=False), open(replies, "wb", closefd=False)


def _end_with_parent(descriptor: int) -> None:
    """End this process, busy or not, when the other end of its input closes: the parent is gone."""
    # A thread waits for this: the main thread may be inside C code that never returns to Python.
    if hasattr(select, "poll"):
        ended = select.poll()
        ended.register(descriptor, 0)  # only a hang-up is reported
        ended.poll()
        os._exit(0)


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # ImportError: Windows; ValueError: macOS knows no RLIMIT_AS
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Address space and not resident memory: Linux enforces no limit on the latter.
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_processor_time(seconds: float) -> None:
    """Limit the time from now on. The parent's own clock comes first; this one is for C code that outlives the parent."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 2, hard))


def _send(replies: BinaryIO, header: dict[str, Any], arrays: list[NDArray]) -> None:
    for piece in pack(header, arrays):
        replies.write(piece)
    replies.flush()


def _receive(requests: BinaryIO) -> dict[str, Any] | None:
    """Return the next request; None at the end of the input, where a frame may be cut."""
    try:
        return unpack_header(requests.read)
    except Garbled:
        return None
