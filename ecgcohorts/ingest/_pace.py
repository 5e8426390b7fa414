"""How far the encoding of a plan is, by recordings, wherever it runs: each process notes its row in the staging folder."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from ecgcohorts.ingest.encode import Staged
from ecgcohorts.ingest.plan import Partition, PlanHeader

_LOOK_SECONDS = 0.5  # our default


class _Pace:
    """The recordings of finished partitions, and of those that processes have under way."""

    def __init__(self, header: PlanHeader, done: Iterable[Partition], tell: Callable[[str, int, int], None]) -> None:
        self._header, self._tell = header, tell
        self._left = {partition.number: partition for partition in header.partitions}
        self._lock = threading.Lock()
        self._before = self._notes()  # what killed processes left says nothing of anybody at work
        for partition in done:
            del self._left[partition.number]
        self._told = self._done = header.n_rows - sum(partition.rows for partition in self._left.values())
        self.look()

    def finish(self, partition: Partition) -> None:
        with self._lock:
            self._done += self._left.pop(partition.number).rows
        self.look()

    def look(self) -> None:
        """Tell how far it is."""
        with self._lock:
            names = {name for name, when in self._notes().items() if self._before.get(name) != when}
            under_way = (Staged(self._header.staging, one) for one in self._left.values())
            rows = sum(one.rows_under_way() for one in under_way if one.now.name in names)
            # Never backwards: a process may have ended whose partition is not yet counted as finished.
            self._told = max(self._told, self._done + rows)
            self._tell("encode", self._told, self._header.n_rows)

    def _notes(self) -> dict[str, int]:
        """Return the notes of processes, each with its time."""
        # Only of those at work: a folder is listed once, where asking for each of thousands would take its time.
        found = {}
        for path in self._header.staging.glob("*.on"):
            with suppress(FileNotFoundError):  # its process has just ended
                found[path.name] = path.stat().st_mtime_ns
        return found


@contextmanager
def _pace(
    header: PlanHeader, done: Iterable[Partition], tell: Callable[[str, int, int], None] | None
) -> Iterator[Callable[[Partition], None]]:
    """Tell how many recordings are encoded, now and then, until the end. Give what is to be called for a finished partition."""
    if tell is None:
        yield lambda partition: None
        return
    pace, end = _Pace(header, done, tell), threading.Event()

    def look() -> None:
        while not end.wait(_LOOK_SECONDS):
            pace.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield pace.finish
    finally:
        end.set()
        thread.join()
