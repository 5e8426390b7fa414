"""Encode partitions in this process, in a pool of processes, or on a Dask cluster.

A runner does tasks in any order and reports which are done. A task gives the same bytes anywhere.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import uuid4

from ecgcohorts.errors import MachineError, SpecError, install_line

if TYPE_CHECKING:
    from distributed import Client, Future

Task = TypeVar("Task")
_STOP_SECONDS = 5.0  # our default; for a worker to end after it was told to
# Tasks sent to a Dask worker at a time: while one runs, the next waits there, and the worker is never idle.
_IN_FLIGHT = 2
_LOOK_SECONDS = 2.0  # our default; how often the scheduler is asked for its workers
_LONELY_SECONDS = 30.0  # our default; without a worker for so long, a run says what it waits for
_LOG = logging.getLogger(__name__)


class WorkerDied(Exception):
    """A worker process ended in the middle of a task without raising an error."""

    def __init__(self, task: Any, how: str) -> None:
        self.task, self.how = task, how
        super().__init__(task, how)


class Runner(Protocol):
    """Does tasks, on as many processes and machines as it was made for."""

    @property
    def elsewhere(self) -> bool:
        """Whether tasks may run on another machine. They are then numbers of partitions of a plan file, each an int that
        is printed with its cohort.
        """

    def run(self, tasks: Iterable[Task], encode: Callable[[Task], object]) -> Iterator[Task]:
        """Yield each task once it is done, in any order. An error of `encode` is raised here and ends the other tasks.

        Raises WorkerDied if a process dies during a task.
        """


@dataclass(frozen=True)
class InProcess:
    """Does one task after the other in this process, which gives plain tracebacks."""

    elsewhere = False

    def run(self, tasks: Iterable[Task], encode: Callable[[Task], object]) -> Iterator[Task]:
        for task in tasks:
            encode(task)
            yield task


@dataclass(frozen=True)
class ProcessPool:
    """Does tasks in `workers` processes of this machine, each with one task at a time."""

    # Not concurrent.futures: its pool cannot say which process died, and on which task.
    workers: int

    elsewhere = False

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def run(self, tasks: Iterable[Task], encode: Callable[[Task], object]) -> Iterator[Task]:
        left = iter(tasks)
        busy: dict[Connection, tuple[BaseProcess, Task]] = {}
        workers: list[tuple[BaseProcess, Connection]] = []
        try:
            for task in islice(left, self.workers):
                process, pipe = _start_worker(encode)
                workers.append((process, pipe))
                busy[pipe] = (process, task)
                _send(pipe, process, task)
            while busy:
                for pipe in [one for one in multiprocessing.connection.wait(list(busy)) if isinstance(one, Connection)]:
                    process, task = busy.pop(pipe)
                    error = _receive(pipe, process, task)
                    if error is not None:
                        raise error
                    for following in islice(left, 1):
                        busy[pipe] = (process, following)
                        _send(pipe, process, following)
                    yield task
        finally:
            _stop(workers, at_once=bool(busy))


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise SpecError(f"found workers={workers}, expected 1 or more.")


def _start_worker(encode: Callable[[Task], object]) -> tuple[BaseProcess, Connection]:
    # Spawned and not forked: a fork copies locks that threads of this process hold, and may wait for them forever.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, encode))
    with _interrupts_held():
        process.start()
    there.close()  # so that the end of the process ends the pipe
    return process, here


def _work(pipe: Connection, encode: Callable[[Any], object]) -> None:
    """Run in a worker process: receive tasks, send None or an error for each."""
    _ignore_interrupts()
    _end_with_parent()
    while True:
        try:
            task = pipe.recv()
        # There are no more tasks, or the parent is dead.
        except (EOFError, ConnectionError):
            return
        try:
            encode(task)
        except Exception as error:
            pipe.send(error)
        else:
            pipe.send(None)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a process is started, which keeps it from there until `_ignore_interrupts`.

    Otherwise a process that is still importing would print a trace. This process gets it afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches all processes of a terminal; the parent handles it and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _end_with_parent() -> None:
    # The parent holds the write lock. When it dies the lock is free, and an orphan would write beside another writer.
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _send(pipe: Connection, process: BaseProcess, task: object) -> None:
    try:
        pipe.send(task)
    except OSError:
        raise WorkerDied(task, _how_it_ended(process)) from None


def _receive(pipe: Connection, process: BaseProcess, task: object) -> Exception | None:
    try:
        error: Exception | None = pipe.recv()
    except (EOFError, OSError):
        raise WorkerDied(task, _how_it_ended(process)) from None
    return error


def _how_it_ended(process: BaseProcess) -> str:
    process.join(_STOP_SECONDS)
    code = process.exitcode
    if code is None:
        return "stopped answering"
    if code == -signal.SIGKILL:
        return "was killed by the system, most likely for lack of memory"
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _stop(workers: list[tuple[BaseProcess, Connection]], at_once: bool) -> None:
    for process, pipe in workers:
        pipe.close()
        if at_once:
            process.terminate()
    for process, _ in workers:
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


@dataclass(frozen=True)
class Dask:
    """Does tasks on a Dask cluster: that of the scheduler at `address`, or `workers` processes started for this run.

    Every worker must see the plan, the input and the store under the same paths, and have this package installed. Give
    each worker one thread; a second one would only wait.
    """

    address: str | None = None
    workers: int = 2

    elsewhere = True

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def run(self, tasks: Iterable[Task], encode: Callable[[Task], object]) -> Iterator[Task]:
        try:
            from distributed import KilledWorker
        except ImportError:
            raise SpecError(f"found no Dask here, which a scheduler needs. Run: {install_line('dask')}") from None
        with ExitStack() as stack:
            stack.enter_context(_without_traces())
            queue = _DaskQueue(_connect(self.address, self.workers, stack), iter(tasks), encode)
            try:
                while (ended := queue.next_ended()) is not None:
                    task, future = ended
                    if future.cancelled():  # by the client, which has lost its scheduler
                        raise _lost("the connection has ended")
                    if future.status == "error":
                        try:
                            future.result()
                        except KilledWorker:
                            raise WorkerDied(task, "died more than once, most likely for lack of memory") from None
                    yield task
            finally:
                queue.cancel()


class _DaskQueue:
    """The tasks that a scheduler has at a time: some for each worker it has now, so that one that comes late gets work."""

    def __init__(self, client: "Client", left: Iterator[Task], encode: Callable[[Task], object]) -> None:
        self._client, self._left, self._encode = client, left, encode
        self._task_of: dict[Future, Any] = {}
        self._done: SimpleQueue[Future] = SimpleQueue()
        self._workers, self._look_at = 1, 0.0
        self._lonely_at = time.monotonic() + _LONELY_SECONDS
        # Keys of two runs must differ: Dask takes tasks of equal keys for one, and does it once.
        self._run = uuid4().hex[:8]

    def next_ended(self) -> "tuple[Any, Future] | None":
        """Wait for the next task to end, and give it with its future; None if no task is left."""
        self._fill()
        while self._task_of:
            try:
                future = self._done.get(timeout=_LOOK_SECONDS)
            except Empty:
                self._fill()
            else:
                return self._task_of.pop(future), future
        return None

    def _fill(self) -> None:
        if time.monotonic() >= self._look_at:
            try:
                workers = len(self._client.nthreads())
            except OSError as error:  # also what `distributed` calls CommClosedError, and a TimeoutError
                raise _lost(type(error).__name__) from None
            self._workers = max(1, workers)
            now = time.monotonic()
            self._look_at = now + _LOOK_SECONDS
            if not workers and now >= self._lonely_at:
                _LOG.warning("the Dask scheduler has no worker; waiting until one comes")
            if workers or now >= self._lonely_at:
                self._lonely_at = now + _LONELY_SECONDS
        for task in islice(self._left, max(0, _IN_FLIGHT * self._workers - len(self._task_of))):
            # Not pure: Dask would take the second run of a partition for the first and skip it. Its dashboard groups tasks
            # by the words of a key, those before the number.
            key = f"encode-{task}-{self._run}"
            future = self._client.submit(_one_at_a_time, self._encode, task, key=key, pure=False, retries=0)
            self._task_of[future] = task
            future.add_done_callback(self._done.put)

    def cancel(self) -> None:
        """Take back what has not ended."""
        with suppress(OSError, CancelledError):  # with its scheduler, a task is gone too
            self._client.cancel(list(self._task_of))


def _lost(how: str) -> MachineError:
    return MachineError(
        f"lost the Dask scheduler ({how}). Start it and its workers again, then run the same command again: finished "
        "partitions are kept."
    )


@contextmanager
def _without_traces() -> Iterator[None]:
    # What `distributed` logs with a trace or as an error it raises as well, and we say it in a line.
    def is_news(record: logging.LogRecord) -> bool:
        return not record.exc_info and record.levelno < logging.ERROR

    logger = logging.getLogger("distributed.client")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)


def _connect(address: str | None, workers: int, stack: ExitStack) -> "Client":
    from distributed import Client, LocalCluster

    if address is None:
        # Port 0 takes any free port; the usual one may belong to another cluster of this machine.
        cluster = stack.enter_context(
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0")
        )
        return stack.enter_context(Client(cluster))
    try:
        return stack.enter_context(Client(address))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"found no Dask scheduler at {address} ({type(error).__name__}). Start it, or check the address."
        ) from None


_TURN = threading.Lock()


def _one_at_a_time(encode: Callable[[Task], object], task: Task) -> None:
    with _TURN:
        encode(task)
