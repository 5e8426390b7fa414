"""Encode partitions in this process, in a pool of processes, or on a Dask cluster.

A runner does tasks in any order and reports which are done. A task gives the same bytes anywhere.
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
# Tasks sent to a Dask worker at a time: while one runs, the next waits there, and the worker is never idle.
_IN_FLIGHT = 2


class WorkerDied(Exception):
    """A worker process ended in the middle of a task without raising an error."""

    def __init__(self, task: object, how: str) -> None:
        self.task, self.how = task, how
        super().__init__(task, how)


class Runner(Protocol):
    """Does tasks, on as many processes and machines as it was made for."""

    @property
    def elsewhere(self) -> bool:
        """Whether tasks may run on another machine. They are then numbers of partitions of a plan file."""

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
    process.start()
    there.close()  # so that the end of the process ends the pipe
    return process, here


def _work(pipe: Connection, encode: Callable[[Any], object]) -> None:
    """Run in a worker process: receive tasks, send None or an error for each."""
    # Ctrl-C reaches all processes of a terminal; the parent handles it and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
            from distributed import KilledWorker, as_completed
        except ImportError:
            raise SpecError(f"found no Dask here, which a scheduler needs. Run: {install_line('dask')}") from None
        with ExitStack() as stack:
            client = _connect(self.address, self.workers, stack)
            left, running = iter(tasks), as_completed()
            task_of: dict[Future, Task] = {}

            def send(count: int) -> None:
                for task in islice(left, count):
                    # Not pure: Dask would take the second run of a partition for the first and skip it.
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
