"""Read the headers of a source in several processes, in the order of one."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice

from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.errors import EcgError, MachineError
from ecgcohorts.ingest.runners import _end_with_parent

_BLOCK = 256  # files sent to a process at a time; our default
_FEW = 2048  # files; below that, starting processes takes longer than reading them here


def _scanned(
    files: Found, only: Iterable[str] | None, skip: Callable[[str, str], bool] | None, workers: int
) -> Iterator[SourceItem]:
    """Yield what `files.scan` yields, in its order, read by `workers` processes where there is enough to do.

    Raises MachineError if a process is killed, and what reading raises.
    """
    paths = files.paths(only, skip)
    # A compressed tar is unpacked by one pass from its beginning, which several would repeat.
    first = [] if workers < 2 or files.source.only_here else list(islice(paths, _FEW))
    if len(first) < _FEW:
        yield from files.scan(chain(first, paths))
        return
    # Spawned, as for decoding: a fork copies locks that threads of this process hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin)
    left = chain(first, paths)
    blocks = iter(lambda: list(islice(left, _BLOCK)), [])
    ahead: deque[Future[list[SourceItem]]] = deque()
    try:
        # Two blocks a process: one under way and one waiting. More would only fill memory with headers.
        for block in islice(blocks, 2 * workers):
            ahead.append(pool.submit(_scan, files, block))
        while ahead:
            items = ahead.popleft().result()
            for block in islice(blocks, 1):
                ahead.append(pool.submit(_scan, files, block))
            yield from items
    except BrokenProcessPool:
        raise MachineError(
            "a process that read headers was killed by the system, most likely for lack of memory. Use fewer: -j 1."
        ) from None
    except EcgError as error:
        raise error from None  # without the worker's trace, which names paths
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    # Ctrl-C reaches all processes of a terminal; the parent handles it and ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()


def _scan(files: Found, paths: list[str]) -> list[SourceItem]:
    return list(files.scan(paths))
