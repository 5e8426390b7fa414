"""Turn planned batches into arrays: read strips and cut their windows, a few batches ahead of the consumer."""

import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.recording import MISSING, Unit
from ecgcohorts.samplers.plan import ABSENT, BatchPlan, window_starts

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.samplers.planner import BatchPlanner

Memory = Callable[[tuple[int, ...]], NDArray[np.int16]]  # shape -> a C-contiguous array of any content
_T = TypeVar("_T")


class _Strips(Protocol):
    """The part of a store that a loader uses."""

    @property
    def index(self) -> "CohortIndex": ...
    @property
    def recipe(self) -> Recipe: ...
    def read_windows(
        self,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        length: NDArray[np.int64],
        out: NDArray[np.int16],
        targets: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> None: ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows as stored integers. Convert them to mV on the device: int16 is half the bytes of float32.

    signal: int16 [batch, view, lead, time], one step = lsb_uv microvolts, -32768 = no sample. Where `unit` is none, a step is
    lsb_uv thousandths of a number without a unit.
    valid: int32 [batch, view], number of samples present from the start of each window; less than the window only where a
    strip is shorter.
    """

    signal: NDArray[np.int16]
    lsb_uv: float
    valid: NDArray[np.int32]
    plan: BatchPlan
    unit: Unit = "mV"

    def __len__(self) -> int:
        return len(self.signal)


class Loader:
    """Iterate over the batches left in the sampler's epoch. The next iteration continues with the next epoch.

    A background thread makes `prefetch` batches ahead (0: the caller's thread makes each when asked), reading with
    `threads` threads (None: as many as suit the store). A batch counts as consumed, in the sampler's state, when it is
    handed out, not when it is read. If the sampler is set to another epoch, or given a state, within an iteration, that goes
    on from there, and what was made ahead is dropped. An error of reading is raised in place of the batch, and once a patient was
    removed from the store, so is one for what was made ahead. Holds prefetch + 2 batches in memory, and those that the
    consumer keeps.
    """

    # Many parameters because two are the data, one the window, and five say how to run; all but the data have defaults.
    def __init__(
        self,
        store: _Strips,
        sampler: "BatchPlanner",
        window: int | None = None,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        prefetch: int = 2,
        threads: int | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Check the options and that the store has all rows of the sampler.

        window: samples; by default the window of the store's recipe. rank, world_size: this process's slice of every
        batch; by default the sampler's (`sampler.on_rank`). memory: makes the arrays of batches, for example
        `loading.torch.pinned`; by default memory that is used again once nothing refers to it. Raises SpecError for a
        window or option out of range, PlanImpossible if the sampler plans rows that the store does not have, or cannot
        serve world_size equal ranks.
        """
        for name, value, least in (("window", window, 1), ("prefetch", prefetch, 0), ("threads", threads, 1)):
            if value is not None and value < least:
                raise SpecError(f"found {name}={value}, expected {least} or more.")
        self.store, self.sampler, self.prefetch, self.threads = store, sampler, prefetch, threads
        self.window = store.recipe.window_samples if window is None else window
        self.rank = sampler.rank if rank is None else rank
        self.world_size = sampler.world_size if world_size is None else world_size
        sampler.check_rank(self.rank, self.world_size)
        # Checked here and not at step 40,000: does the store have every row that may be planned?
        self._ranges = _ValidRanges(store.index)
        if sampler.index is not store.index:
            self._ranges.of(sampler.rows)
        self.memory: Memory = memory or _Buffers(spare=prefetch + 2).take

    def __len__(self) -> int:
        """Return the number of batches in the sampler's current epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self._of_epochs(1)

    def endless(self) -> Generator[Batch, None, None]:
        """Yield the same batches epoch after epoch, made ahead across the end of each; close it when done."""
        return self._of_epochs(None)

    def _of_epochs(self, epochs: int | None) -> Generator[Batch, None, None]:
        return self.sampler._follow(self._at, epochs)

    def made(self, places: Iterable[tuple[int, int]]) -> Generator[Batch, None, None]:
        """Yield the batches at some (epoch, step), made ahead. The sampler's position stays where it is."""
        with closing(self._at(places)) as batches:
            yield from (batch for _, batch in batches)

    def _at(self, places: Iterable[tuple[int, int]]) -> Generator[tuple[tuple[int, int], Batch], None, None]:
        made = ((place, self._noted(*place)) for place in places)
        # Strips of one's own, an array in memory for example, need not know of removals.
        check: Callable[[], None] = getattr(self.store, "refuse_removed", lambda: None)
        yield from read_ahead(made, self.prefetch, check) if self.prefetch else made

    def load(self, epoch: int, step: int) -> Batch:
        """Plan, read and cut one batch. It depends on the arguments and the sampler's options only."""
        plan = self.sampler.plan(epoch, step, self.rank, self.world_size)
        shape = (*plan.rows.shape, len(self.store.recipe.leads), self.window)
        signal = self.memory(shape)
        # A sampler with last="pad" plans ABSENT rows: their windows hold no sample.
        valid = np.zeros(plan.rows.shape, np.int32)
        rows = plan.rows.ravel()
        here = np.flatnonzero(rows != ABSENT)
        start, stop = self._ranges.of(rows[here])
        views = plan.rows.shape[1]
        stretch = self.window * views if plan.adjacent else self.window
        start = window_starts(plan.offsets.ravel()[here], start, stop, stretch)
        if plan.adjacent:
            start = np.minimum(start + here % views * self.window, stop)  # a short strip leaves the last windows empty
        present = np.clip(stop - start, 0, self.window)
        valid.reshape(-1)[here] = present
        windows = signal.reshape(-1, *shape[2:])
        windows[rows == ABSENT] = MISSING
        self.store.read_windows(rows[here], start, present, windows, here, self.threads)
        return Batch(signal, self.store.recipe.lsb_uv, valid, plan, self.store.recipe.unit)

    def _noted(self, epoch: int, step: int) -> Batch:
        try:
            return self.load(epoch, step)
        except BaseException as error:
            error.add_note(f"While loading step {step} of epoch {epoch}.")
            raise


def read_ahead(items: Iterator[_T], depth: int, check: Callable[[], None]) -> Generator[_T, None, None]:
    """Yield items in order, made in one background thread that is at most `depth` (1 or more) ahead.

    `items` is run in that thread alone, from the first `next` on. An error of it is raised where its item would have come,
    and ends it. check: called before each item is handed out, such as `refuse_removed` of the store that was read: what was
    read before a patient was removed must not be used afterwards. Close the generator when done early: that waits for the item in the making, and ends the thread.
    """
    ready: queue.SimpleQueue[tuple[_T] | BaseException] = queue.SimpleQueue()
    slots = threading.Semaphore(depth)
    stop = threading.Event()

    def produce() -> None:
        while slots.acquire() and not stop.is_set():
            try:
                ready.put((next(items),))
            # Of any kind, the end of the items among them: it is raised again in the consumer's thread.
            except BaseException as error:
                ready.put(error)
                return

    # A thread and not a process: passing batches between processes takes several times as long as reading them here.
    producer = threading.Thread(target=produce, name="ecgcohorts-loader", daemon=True)
    producer.start()
    try:
        while True:
            made = ready.get()
            slots.release()
            if isinstance(made, StopIteration):
                return
            if isinstance(made, BaseException):
                raise made
            check()
            yield made[0]
            # The item is the consumer's alone: kept here, its memory could not be used again.
            del made
    finally:  # also when the consumer stops early; the thread ends after the item it is making
        stop.set()
        slots.release()
        producer.join()


class _ValidRanges:
    """Store row -> the range of its strip that holds signal."""

    def __init__(self, index: "CohortIndex") -> None:
        rows = index["row"]
        # An index ordered by patient need not be ordered by row, after several ingest runs for example.
        order = slice(None) if (np.diff(rows) > 0).all() else np.argsort(rows)
        self._rows, self._start, self._stop = rows[order], index["valid_start"][order], index["valid_stop"][order]

    def of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first valid sample of some rows, and one past the last. Raises PlanImpossible for an unknown row."""
        at = np.minimum(np.searchsorted(self._rows, rows), len(self._rows) - 1)
        strange = self._rows[at] != rows
        if strange.any():
            raise PlanImpossible(
                f"{int(strange.sum())} planned rows, the first {rows[strange][0]}, are not in the store's index. Build the "
                "sampler from this store's index, or a part of it."
            )
        return self._start[at].astype(np.int64), self._stop[at].astype(np.int64)


class _Buffers:
    """Memory for batches, used again once nothing refers to it: new pages take as long as cutting the windows."""

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._free: list[bytearray] = []

    def take(self, shape: tuple[int, ...]) -> NDArray[np.int16]:
        size = 2 * int(np.prod(shape))
        try:  # no look before: another thread may take the last one in between
            memory = self._free.pop()
        except IndexError:
            memory = bytearray()
        if len(memory) != size:
            memory = bytearray(size)
        # Every array made from `whole`, by slicing or by another framework, keeps `whole` alive: numpy follows the chain
        # of owners up to an array over foreign memory, and stops there.
        whole = np.frombuffer(memory, np.int16)
        weakref.finalize(whole, self._give_back, memory).atexit = False
        return whole.reshape(shape)

    def _give_back(self, memory: bytearray) -> None:
        if len(self._free) < self._spare:
            self._free.append(memory)
