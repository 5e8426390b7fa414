"""Where partitions are encoded: in this process, in a pool of processes, or on a Dask cluster.

A runner carries out tasks in any order and says which are done. What it runs gives the same bytes anywhere.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ecgcohorts.errors import SpecError, install_line

if TYPE_CHECKING:
    from distributed import Client, Future

Task = TypeVar("Task")
_STOP_SECONDS = 5.0  # our default; for a worker to end after it was told to
_IN_FLIGHT = 2  # tasks sent to a Dask worker at a time: the next waits there while one runs


class WorkerDied(Exception):
    """A worker process ended in the middle of a task, without a word."""

    def __init__(self, task: object, how: str) -> None:
        self.task, self.how = task, how
        super().__init__(task, how)


class Runner(Protocol):
    """Carries out tasks. Made ready by whoever knows how many processes and machines there are."""

    @property
    def elsewhere(self) -> bool:
        """May tasks run on another machine? Then they are numbers of partitions of a plan file, so that they are small."""

    def run(self, tasks: Iterable[Task], encode: Callable[[Task], object]) -> Iterator[Task]:
        """Yield each task once it is done, in any order. Errors of `encode` are raised here, and end the rest.

        Raises WorkerDied if a process that had a task is gone.
        """


@dataclass(frozen=True)
class InProcess:
    """One after the other, here: plain tracebacks."""

    elsewhere = False

    def run(self, tasks: Iterable[Task], encode: Callable[[Task], object]) -> Iterator[Task]:
        for task in tasks:
            encode(task)
            yield task


@dataclass(frozen=True)
class ProcessPool:
    """`workers` processes of this machine, each with one task at a time.

    Not concurrent.futures: its pool cannot say which process died, and on which task.
    """

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
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, encode))
    process.start()
    there.close()  # so that the end of the process ends the pipe
    return process, here


def _work(pipe: Connection, encode: Callable[[Any], object]) -> None:
    """What a worker process does: tasks come in, None or an error goes out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it, which ends this one
    _end_with_parent()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, ConnectionError):  # no more tasks; or whoever had them is dead
            return
        try:
            encode(task)
        except Exception as error:
            pipe.send(error)
        else:
            pipe.send(None)


def _end_with_parent() -> None:
    """No orphan may go on writing without the lock."""
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
    """A Dask cluster: the scheduler at `address`, or one of `workers` processes made here for as long as it runs.

    Every worker must see the plan, the input and the store under the same paths, and have this package. Give workers one
    thread each: a second one would wait.
    """

    address: str | None = None
    workers: int = 2

    elsewhere = True

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def run(self, tasks: Iterable[Task], encode: Callable[[Task], object]) -> Iterator[Task]:
        try:
            from distributed import KilledWorker, as_completed
        except ImportError:
            raise SpecError(f"found no Dask here, which a scheduler needs. Run: {install_line('dask')}") from None
        with ExitStack() as stack:
            client = _connect(self.address, self.workers, stack)
            left, running = iter(tasks), as_completed()
            task_of: dict[Future, Task] = {}

            def send(count: int) -> None:
                for task in islice(left, count):
                    future = client.submit(_one_at_a_time, encode, task, pure=False, retries=0)
                    task_of[future] = task
                    running.add(future)

            try:
                send(_IN_FLIGHT * max(1, len(client.scheduler_info(n_workers=-1)["workers"])))
                for future in running:
                    task = task_of.pop(future)
                    try:
                        future.result()
                    except KilledWorker:
                        raise WorkerDied(task, "died more than once, most likely for lack of memory") from None
                    send(1)
                    yield task
            finally:
                client.cancel(list(task_of))


def _connect(address: str | None, workers: int, stack: ExitStack) -> "Client":
    from distributed import Client, LocalCluster

    if address is None:
        # Port 0: any free one; the usual one may belong to another cluster of this machine.
        cluster = stack.enter_context(
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0")
        )
        return stack.enter_context(Client(cluster))
    try:
        return stack.enter_context(Client(address))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"found no Dask scheduler at {address} ({type(error).__name__}). Start it, or check this."
        ) from None


_TURN = threading.Lock()


def _one_at_a_time(encode: Callable[[Task], object], task: Task) -> None:
    with _TURN:
        encode(task)
