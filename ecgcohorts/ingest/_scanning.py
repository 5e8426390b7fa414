"""Read the headers of a source in several processes, in the order of one."""

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice

from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.errors import EcgError
from ecgcohorts.ingest.runners import _end_with_parent, _ignore_interrupts, _interrupts_held

log = logging.getLogger(__name__)

_BLOCK = 256  # files sent to a process at a time; our default
_FEW = 2048  # files; below that, starting processes takes longer than reading them here


def _scanned(
    files: Found, only: Iterable[str] | None, skip: Callable[[str, str], bool] | None, workers: int
) -> Iterator[SourceItem]:
    """Yield what `files.scan` yields, in its order, read by `workers` processes where there is enough to do.

    Goes on in this process if another one is killed. Raises what reading raises.
    """
    paths = files.paths(only, skip)
    # A compressed tar is unpacked by one pass from its beginning, which several would repeat.
    first = [] if workers < 2 or files.source.only_here else list(islice(paths, _FEW))
    if len(first) < _FEW:
        yield from files.scan(chain(first, paths))
        return
    # Spawned, as for decoding: a fork copies locks that threads of this process hold.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    left = chain(first, paths)
    unread: deque[list[str]] = deque()
    ahead: deque[Future[list[SourceItem]]] = deque()

    def send(blocks: int) -> None:
        for block in islice(iter(lambda: list(islice(left, _BLOCK)), []), blocks):
            unread.append(block)  # first: where sending fails, it is read here
            with _interrupts_held():
                ahead.append(pool.submit(_scan, files, block))

    try:
        # Two blocks a process: one under way and one waiting. More would only fill memory with headers.
        send(2 * workers)
        while ahead:
            items = ahead.popleft().result()
            unread.popleft()
            yield from items
            send(1)
    except BrokenProcessPool:
        log.warning(
            "a process that reads headers has ended: killed for lack of memory, or its script lacks "
            "`if __name__ == '__main__':`; going on in this process"
        )
        yield from files.scan(chain(*unread, left))
    except EcgError as error:
        raise error from None  # without the worker's trace, which names paths
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    _ignore_interrupts()
    _end_with_parent()


def _scan(files: Found, paths: list[str]) -> list[SourceItem]:
    return list(files.scan(paths))
