"""Run readers that call C libraries in a process that may die: one beside each process of ours, started on first use.

Whatever a hostile file does there ends there: memory and time are limited, and a crash becomes an UnreadableRecording.
The process ends with ours. Systems without `select.poll` (Windows) have neither limit; a crash is caught there as well.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ecgcohorts.errors import EcgError, Reason, UnreadableRecording
from ecgcohorts.readers._isolated.wire import Garbled, Reply, pack, unpack_header
from ecgcohorts.recording import Recording

if TYPE_CHECKING:
    from ecgcohorts.readers.arrays.description import ArrayDescription

SECONDS_PER_RECORDING = 30.0  # design limit
START_SECONDS = 60.0  # our default: imports from a network disk take a while
PIPE_BYTES = 1 << 20  # the most Linux gives without rights; a recording of ten seconds fits
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from ecgcohorts.readers._isolated.child import main; main()"
)
# The process gets nothing of our environment but what its libraries and file names need.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE")
_SET = {
    "OPENBLAS_NUM_THREADS": "1",  # a pool of threads would take address space, and nothing here multiplies matrices
    "OMP_NUM_THREADS": "1",
    "HDF5_PLUGIN_PRELOAD": "::",  # tells HDF5 to load no filter from a library
}


class _Lost(Exception):
    """The process died, was killed, or spoke nonsense."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class _Stream(NamedTuple):
    """A call that goes on in the process where it was begun."""

    process: "_Process"
    number: int


class IsolatedReader:
    """A reader by name that runs beside us. Like a module's generators, it does nothing before the first `next`."""

    def __init__(self, name: str, arrays: "ArrayDescription | None" = None) -> None:
        self._name = name
        self._arrays = None if arrays is None else arrays.model_dump_json(exclude_unset=True)

    def read(self, path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
        return self._call("read", path, None if entries is None else list(entries))

    def scan(self, path: Path) -> Iterator[Recording]:
        return self._call("scan", path, None)

    def _call(self, call: str, path: Path, entries: list[str] | None) -> Iterator[Recording]:
        request = {
            "do": "open",
            "reader": self._name,
            "arrays": self._arrays,
            "call": call,
            "path": str(path),
            "folder": None if path.is_absolute() else os.getcwd(),
            "entries": entries,
        }
        given, spent = 0, 0.0
        stream: _Stream | None = None
        try:
            while True:
                start = time.monotonic()
                reply, stream = _BESIDE.ask(request | {"skip": given}, stream, SECONDS_PER_RECORDING + spent, path)
                spent += time.monotonic() - start  # a new process must read what was given once more
                for recording in reply.recordings:
                    given += 1
                    yield recording
                if reply.error is not None:
                    raise reply.error
                if stream is None:
                    return
        finally:
            if stream is not None:
                _BESIDE.abandon(stream)


class _Process:
    """One process and our ends of its two pipes."""

    def __init__(self) -> None:
        self.asked = 0  # requests so far: only a crash of a new process is certainly the fault of the file
        paths = [str(path) or os.getcwd() for path in sys.path]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _SET
        self._popen = subprocess.Popen(
            # -I: neither PYTHONPATH nor a user site of our environment adds code; the paths come as an argument
            # instead.
            [sys.executable, "-I", "-c", _START, json.dumps(paths)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._requests, self._replies = cast(FileIO, self._popen.stdin), cast(FileIO, self._popen.stdout)
        # Pipes that do not block can be waited for with a deadline.
        if hasattr(select, "poll"):
            os.set_blocking(self._requests.fileno(), False)
            os.set_blocking(self._replies.fileno(), False)
        with suppress(ImportError, AttributeError, OSError):  # Linux only; refused where a user has many large pipes
            import fcntl

            fcntl.fcntl(self._replies.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def greet(self) -> None:
        """Wait until it has imported what it needs. Raises _Lost."""
        self._header(time.monotonic() + START_SECONDS)

    def send(self, request: dict[str, Any], deadline: float) -> None:
        """Write a request to the pipe. Raises _Lost."""
        left = memoryview(b"".join(pack(request)))
        while left:
            try:
                count = self._requests.write(left)
            except OSError:
                raise self._lost() from None
            if count is None:
                self._wait(self._requests, "POLLOUT", deadline)
            left = left[count or 0 :]

    def reply(self, path: Path, deadline: float) -> Reply:
        """Read the reply to the last request. Raises _Lost, Garbled."""
        return Reply.unpack(self._header(deadline), path, lambda view: self._fill(view, deadline))

    def close_streams(self, numbers: list[int]) -> None:
        """Let the process drop calls that nobody continues. Raises _Lost."""
        deadline = time.monotonic() + SECONDS_PER_RECORDING
        self.send({"do": "close", "streams": numbers}, deadline)
        self._header(deadline)

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._popen.kill()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=5)
        self.forget()

    def forget(self) -> None:
        """Close our ends of the pipes, upon which the process ends itself. After a fork it belongs to our parent."""
        self._requests.close()
        self._replies.close()
        if self._popen.returncode is None:
            self._popen.returncode = 0  # or else Popen waits for it, and warns, when it is deleted

    def _header(self, deadline: float) -> dict[str, Any]:
        def read(count: int) -> bytearray:
            data = bytearray(count)
            self._fill(memoryview(data), deadline)
            return data

        return unpack_header(read)

    def _fill(self, view: memoryview, deadline: float) -> None:
        while view:
            count = self._replies.readinto(view)
            if count == 0:
                raise self._lost()
            if count is None:
                self._wait(self._replies, "POLLIN", deadline)
            view = view[count or 0 :]

    def _wait(self, pipe: FileIO, event: str, deadline: float) -> None:
        """Wait until the pipe is ready or has ended. Raises _Lost. Called only where pipes do not block."""
        ready = select.poll()
        ready.register(pipe.fileno(), getattr(select, event))
        if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _Lost(Reason.TIMEOUT)

    def _lost(self) -> _Lost:
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=5)
        out_of_time = -getattr(signal, "SIGXCPU", 0)
        return _Lost(Reason.TIMEOUT if out_of_time and self._popen.returncode == out_of_time else Reason.CRASH)


class _Beside:
    """The one process beside ours; one thread at a time talks to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._abandoned: deque[_Stream] = deque()  # appended to by finalizers, which may run in any thread: no lock
        self._last = 0

    def ask(
        self, opening: dict[str, Any], stream: _Stream | None, seconds: float, path: Path
    ) -> tuple[Reply, _Stream | None]:
        """Continue `stream`, or begin the call that `opening` describes. Returns the reply and the stream to continue.

        A process that has served other files may die of what those left behind: a new one then tries again, once.
        """
        with self._lock:
            while True:
                process = self._ready()
                is_new = not process.asked
                process.asked += 1
                request = dict(opening)
                if stream is not None and stream.process is process:
                    request = {"do": "next", "stream": stream.number}
                else:
                    self._last += 1
                    request["stream"] = self._last
                try:
                    deadline = time.monotonic() + seconds
                    process.send(request | {"seconds": seconds}, deadline)
                    reply = process.reply(path, deadline)
                    if not isinstance(reply.error, MemoryError):
                        return reply, _Stream(process, request["stream"]) if reply.stream else None
                    reason = Reason.LIMIT
                except (_Lost, Garbled) as lost:
                    reason = lost.reason if isinstance(lost, _Lost) else Reason.CRASH
                except BaseException:  # Ctrl-C between request and reply: the next reply would be the wrong one
                    self._end()
                    raise
                self._end()
                # A second try is only worth its time if earlier files may be to blame; one that was too slow will be
                # again.
                if is_new or reason is Reason.TIMEOUT:
                    raise _refusal(reason, path)

    def abandon(self, stream: _Stream) -> None:
        """Remember a call that its caller left; the next request closes it."""
        self._abandoned.append(stream)

    def end(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def end_at_exit(self) -> None:
        """End the process even while a thread, which ends with us as well, waits for its reply."""
        if self._process is not None:
            self._process.kill()

    def forget(self) -> None:
        """Leave the process to the parent, in a process that was just forked."""
        if self._process is not None:
            self._process.forget()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _ready(self) -> _Process:
        """Return a live process in which no abandoned call is open."""
        if self._process is not None and not self._process.is_alive():
            self._end()
        if self._process is not None and self._abandoned:
            gone = [self._abandoned.popleft() for _ in range(len(self._abandoned))]
            numbers = [stream.number for stream in gone if stream.process is self._process]
            try:
                if numbers:
                    self._process.close_streams(numbers)
            except (_Lost, Garbled):  # the fault of a file nobody asks for any more
                self._end()
        if self._process is None:
            self._process = _started()
        return self._process


def _started() -> _Process:
    process = _Process()
    try:
        process.greet()
    except (_Lost, Garbled):
        process.kill()
        raise EcgError(
            f"The process that reads files did not start ({sys.executable}). "
            "Check that this Python can import ecgcohorts."
        ) from None
    except BaseException:
        process.kill()
        raise
    return process


def _refusal(reason: Reason, path: Path) -> UnreadableRecording:
    found, expected = {
        Reason.TIMEOUT: ("a recording that takes too long", f"at most {SECONDS_PER_RECORDING:g} s"),
        Reason.LIMIT: ("a recording that takes too much memory", "at most 2 GB"),
    }.get(reason, ("a file that ends the process reading it", "a file that can be read"))
    return UnreadableRecording(reason, found, expected, "Fetch it again; do not trust it.", str(path))


_BESIDE = _Beside()


def _after_fork() -> None:
    global _BESIDE
    _BESIDE.forget()
    _BESIDE = _Beside()


# A forked worker shares the pipes of its parent: two that talk over them would read each other's replies.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _BESIDE.end_at_exit())
