"""Windows as planned, ahead of the consumer but never too far, and errors where they belong."""

import gc
import multiprocessing
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

import ecgcohorts as ec
from ecgcohorts.errors import PlanImpossible, SpecError, StoreError
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex
from ecgcohorts.ingest import ingest
from ecgcohorts.loading.loader import Loader, read_ahead
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import Cut
from ecgcohorts.recording import MISSING
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler
from ecgcohorts.store.signals.shards import ShardedArray, Windows

TINY = CAPE_V1.changed("tiny", Cut(strip_s=0.5, window_s=0.3))
T, WINDOW = TINY.strip_samples, TINY.window_samples  # 200, 120
RECORDS, PATIENTS = 120, 40


def tiny_index() -> CohortIndex:
    """40 patients of three records in two cohorts; rows in disorder; every fifth strip shorter than a window."""
    rng = np.random.default_rng(0)
    columns = {name: np.zeros(RECORDS, dtype) for name, dtype in COLUMNS.items()}
    columns["row"] = rng.permutation(RECORDS)
    columns["patient"] = np.repeat(np.arange(PATIENTS), 3)
    columns["cohort"] = (columns["patient"] >= PATIENTS // 2).astype(np.int32)
    columns["valid_start"] = rng.integers(0, 20, RECORDS).astype(np.int32)
    columns["valid_stop"] = (T - rng.integers(0, 30, RECORDS)).astype(np.int32)
    columns["valid_stop"][::5] = columns["valid_start"][::5] + 70
    return CohortIndex(columns, ("a", "b"))


class TinyStore:
    """In memory; counts and refuses reads as told."""

    recipe, lsb_uv = TINY, 1.0

    def __init__(self) -> None:
        self.index = tiny_index()
        rng = np.random.default_rng(1)
        self.strips = rng.integers(-999, 999, (RECORDS, 8, T)).astype(np.int16)
        for row, start, stop in zip(*(self.index[name] for name in ("row", "valid_start", "valid_stop")), strict=True):
            self.strips[row, :, :start] = self.strips[row, :, stop:] = MISSING
        self.refused: set[int] = set()
        self.rows_read = 0

    def read_windows(self, rows, first, length, out, targets, threads) -> None:
        bad = self.refused & set(rows.tolist())
        if bad:
            raise StoreError(f"shard 7: row {min(bad)} is damaged")
        self.rows_read += len(rows)
        for row, start, n, target in zip(rows, first, length, targets, strict=True):
            out[target, :, :n], out[target, :, n:] = self.strips[row, :, start : start + n], MISSING


def windows_of(array: ShardedArray):
    def read_windows(rows, first, length, out, targets, threads) -> None:
        array.read_into(rows, out, targets, Windows(first, length), threads)

    return read_windows


@pytest.fixture
def store() -> TinyStore:
    return TinyStore()


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ecgcohorts-loader"]


def sampler_of(store, **options) -> PatientPairSampler:
    return PatientPairSampler(store.index, **({"pairs": 5, "seed": 0} | options))


# --- what a batch holds ---


@pytest.mark.parametrize("window", [1, WINDOW, T, T + 50])
@pytest.mark.parametrize("options", [{}, {"views": 3, "pairs": 40}])
def test_windows_are_the_planned_ones(store, window, options):
    sampler = sampler_of(store, **options)
    loader = Loader(store, sampler, window=window)
    ranges = {
        row: (start, stop)
        for row, start, stop in zip(
            *(store.index[name].tolist() for name in ("row", "valid_start", "valid_stop")), strict=True
        )
    }
    some_short = False
    for batch in loader:
        assert batch.signal.shape == (*batch.plan.rows.shape, 8, window)
        assert (batch.signal.dtype, batch.valid.dtype, batch.lsb_uv) == (np.int16, np.int32, 1.0)
        for place in np.ndindex(batch.plan.rows.shape):
            row = int(batch.plan.rows[place])
            start, stop = ranges[row]
            begin = start + int(batch.plan.offsets[place] * max(stop - start - window + 1, 1))
            expected = np.full((8, window), MISSING, np.int16)
            present = min(window, stop - begin)
            expected[:, :present] = store.strips[row, :, begin : begin + present]
            assert np.array_equal(batch.signal[place], expected)
            assert batch.valid[place] == present
            assert (expected[:, :present] != MISSING).all()
            some_short |= present < window
    assert some_short == (window > 1)


@pytest.mark.parametrize("window", [30, 60, WINDOW])  # a fifth of the strips has 70 samples: one window, and a rest
def test_neighbouring_windows_lie_side_by_side(store, window):
    sampler = RandomBatchSampler(store.index, batch_size=20, seed=0, views=2, adjacent=True)
    for step in range(len(sampler)):
        plan = sampler.plan(0, step)
        batch = Loader(store, sampler, window).load(0, step)
        for place, row in enumerate(plan.rows[:, 0].tolist()):
            entry = int(np.flatnonzero(store.index["row"] == row)[0])
            start, stop = (int(store.index[f"valid_{edge}"][entry]) for edge in ("start", "stop"))
            begin = start + int(plan.offsets[place, 0] * max(stop - start - 2 * window + 1, 1))
            expected = np.full((8, 2 * window), MISSING, np.int16)
            present = min(2 * window, stop - begin)
            expected[:, :present] = store.strips[row, :, begin : begin + present]
            assert np.array_equal(np.concatenate(list(batch.signal[place]), axis=1), expected)
            assert batch.valid[place].tolist() == [min(present, window), max(0, present - window)]


def test_padded_places_hold_nothing(store):
    batch = Loader(store, sampler_of(store, pairs=25, last="pad"), window=WINDOW).load(0, 1)  # 40 patients
    assert (batch.signal[15:] == MISSING).all()
    assert batch.valid[15:].tolist() == [[0, 0]] * 10
    assert (batch.valid[:15] > 0).all()


@pytest.mark.parametrize("rank_of_sampler", [True, False])
def test_ranks_load_slices_of_one_batch(store, rank_of_sampler):
    sampler = sampler_of(store, pairs=8)
    whole = Loader(store, sampler, window=WINDOW).load(0, 2)
    parts = [
        Loader(store, sampler.on_rank(rank, 4), window=WINDOW)
        if rank_of_sampler
        else Loader(store, sampler, window=WINDOW, rank=rank, world_size=4)
        for rank in range(4)
    ]
    assert np.array_equal(np.concatenate([part.load(0, 2).signal for part in parts]), whole.signal)


# --- when ---


@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (1, 1), (3, 4), (20, 2)])
def test_batches_come_in_order_whatever_the_threads(store, prefetch, threads):
    sampler = InDistributionBatchSampler(store.index, pairs=4, seed=0)
    loader = Loader(store, sampler, window=WINDOW, prefetch=prefetch, threads=threads)
    for epoch in range(2):  # the second iteration is the next epoch
        batches = list(loader)
        assert len(batches) == len(loader) == 10
        for step, batch in enumerate(batches):
            assert (batch.plan.epoch, batch.plan.step) == (epoch, step)
            assert np.array_equal(batch.signal, loader.load(epoch, step).signal)


def test_state_counts_what_was_handed_out_not_what_was_read(store):
    """Resumed after every step, the rest of two epochs is bitwise the same."""
    reference = sampler_of(store)
    expected = [batch.plan.rows for _ in range(2) for batch in Loader(store, reference, window=WINDOW)]
    for consumed in range(len(expected)):
        first = sampler_of(store)
        seen = 0
        while seen < consumed:
            for batch in Loader(store, first, window=WINDOW, prefetch=4):
                assert np.array_equal(batch.plan.rows, expected[seen])
                seen += 1
                if seen == consumed:
                    break
        resumed = sampler_of(store)
        resumed.load_state_dict(first.state_dict())
        rest = [batch.plan.rows for batch in Loader(store, resumed, window=WINDOW)]
        assert all(np.array_equal(*pair) for pair in zip(rest, expected[consumed:], strict=False))
        assert len(rest) == 8 - consumed % 8


def test_reading_stays_prefetch_batches_ahead(store):
    loader = Loader(store, sampler_of(store), window=WINDOW, prefetch=2)
    batches = iter(loader)
    for handed_out in range(1, 5):
        next(batches)
        deadline = time.monotonic() + 10
        while store.rows_read < 10 * (handed_out + 2) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # time to run too far
        assert store.rows_read == 10 * (handed_out + 2)


def test_stopping_early_ends_the_thread(store):
    for batch in Loader(store, sampler_of(store), window=WINDOW):
        assert loader_threads()
        assert batch is not None
        break
    gc.collect()
    assert loader_threads() == []


def test_without_end_one_producer_crosses_the_ends_of_epochs(store):
    """Eight batches an epoch; the thread has read the first batches of the next one when the last is handed out."""
    sampler = sampler_of(store)
    loader = Loader(store, sampler, window=WINDOW, prefetch=2)
    producers, batches = set(), loader.endless()
    for number in range(20):
        batch = next(batches)
        epoch, step = divmod(number, 8)
        assert (batch.plan.epoch, batch.plan.step) == (epoch, step)
        assert np.array_equal(batch.signal, loader.load(epoch, step).signal)
        assert sampler.position == divmod(number + 1, 8)  # so that a state saved here goes on behind this batch
        producers |= {thread.ident for thread in threading.enumerate() if thread.name == "ecgcohorts-loader"}
    assert len(producers) == 1
    batches.close()
    assert loader_threads() == []


def test_without_end_a_new_epoch_or_state_takes_effect_at_once(store):
    sampler, other = sampler_of(store), sampler_of(store)
    other.mark_consumed(4, 2)
    batches = Loader(store, sampler, window=WINDOW, prefetch=3).endless()
    assert [next(batches).plan.step for _ in range(3)] == [0, 1, 2]
    sampler.set_epoch(7)
    assert [(made.plan.epoch, made.plan.step) for made in (next(batches), next(batches))] == [(7, 0), (7, 1)]
    sampler.load_state_dict(other.state_dict())
    assert [(made.plan.epoch, made.plan.step) for made in (next(batches), next(batches))] == [(4, 3), (4, 4)]
    batches.close()
    assert loader_threads() == []


def test_batches_of_any_places_leave_the_position_alone(store):
    sampler = sampler_of(store)
    loader = Loader(store, sampler, window=WINDOW, prefetch=2)
    places = [(3, 1), (0, 7), (3, 0)]
    assert [(made.plan.epoch, made.plan.step) for made in loader.made(places)] == places
    assert sampler.position == (0, 0)
    assert loader_threads() == []


def test_anything_can_be_read_ahead():
    """In its order, in one thread, with the error where its item would have come."""

    def items():
        yield from enumerate([threading.current_thread()] * 3)
        raise StoreError("shard 7")

    made = read_ahead(items(), 2, lambda: None)
    found = [next(made) for _ in range(3)]
    assert [number for number, _ in found] == [0, 1, 2]
    assert len({thread for _, thread in found} - {threading.current_thread()}) == 1
    with pytest.raises(StoreError, match="shard 7"):
        next(made)
    assert list(made) == loader_threads() == []


def test_what_was_read_ahead_is_not_handed_out_once_it_must_not_be_used():
    """As when a patient is removed: also what is in the queue by then."""
    gone = threading.Event()

    def check():
        if gone.is_set():
            raise StoreError("a patient was removed")

    made = read_ahead(iter(range(9)), 2, check)
    assert next(made) == 0
    gone.set()
    with pytest.raises(StoreError, match="a patient was removed"):
        next(made)
    assert list(made) == loader_threads() == []


# --- memory ---


def test_batches_that_are_kept_are_not_written_over(store):
    loader = Loader(store, sampler_of(store), window=WINDOW, prefetch=1)
    kept = [batch.signal[2:, 1, ::3] for batch in loader]  # views only: the batches themselves are gone
    gc.collect()
    list(loader)
    for step, signal in enumerate(kept):
        assert np.array_equal(signal, loader.load(0, step).signal[2:, 1, ::3])


def test_memory_of_dropped_batches_is_used_again(store):
    loader = Loader(store, sampler_of(store, pairs=1), window=WINDOW, prefetch=2)
    places = {batch.signal.ctypes.data for batch in loader}  # 40 batches
    assert len(places) <= 2 + 3


# --- what goes wrong ---


def consume(loader: Loader, steps: list[int]) -> None:
    for batch in loader:
        steps.append(batch.plan.step)


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_comes_where_its_batch_would_have(store, prefetch):
    sampler = sampler_of(store)
    store.refused = {int(sampler.plan(0, 3).rows[2, 1])}
    loader = Loader(store, sampler, window=WINDOW, prefetch=prefetch)
    steps: list[int] = []
    with pytest.raises(StoreError, match="shard 7: row") as caught:
        consume(loader, steps)
    assert steps == [0, 1, 2]
    assert prefetch == 0 or caught.value.__notes__ == ["While loading step 3 of epoch 0."]
    assert loader_threads() == []
    assert sampler.position == (0, 3)
    store.refused.clear()
    assert [batch.plan.step for batch in loader] == [3, 4, 5, 6, 7]  # repaired, it goes on there


def test_a_damaged_shard_is_named_to_the_consumer(store, tmp_path: Path):
    array = zarr.create_array(
        tmp_path / "signals",
        shape=store.strips.shape,
        chunks=(1, 8, T),
        shards=(16, 8, T),
        dtype="int16",
        fill_value=MISSING,
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2), Crc32cCodec()],
    )
    array[:] = store.strips
    expected = [batch.signal for batch in Loader(store, sampler_of(store), window=WINDOW)]
    store.read_windows = windows_of(ShardedArray(tmp_path / "signals"))
    found = [batch.signal for batch in Loader(store, sampler_of(store), window=WINDOW)]
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    (tmp_path / "signals/c/3/0/0").unlink()
    store.read_windows = windows_of(ShardedArray(tmp_path / "signals"))
    with pytest.raises(StoreError, match="c/3/0/0"):
        list(Loader(store, sampler_of(store), window=WINDOW))


def test_a_sampler_of_another_index_is_refused_when_built(store):
    part = store.index.where(cohort="b")
    Loader(store, PatientPairSampler(part, pairs=5, seed=0), window=WINDOW)
    store.index = part
    with pytest.raises(PlanImpossible, match=r"60 planned rows, the first .*, are not in the store's index"):
        Loader(store, sampler_of(TinyStore()), window=WINDOW)


@pytest.mark.parametrize("options", [{"window": 0}, {"prefetch": -1}, {"threads": 0}])
def test_options_out_of_range(store, options):
    with pytest.raises(SpecError, match=next(iter(options))):
        Loader(store, sampler_of(store), **options)


def test_ranks_that_do_not_divide(store):
    with pytest.raises(PlanImpossible, match="pairs=5 for 2 ranks"):
        Loader(store, sampler_of(store), window=WINDOW, rank=0, world_size=2)


def _rest_of(loader: Loader) -> list[np.ndarray]:
    return [batch.signal for batch in loader]


def test_a_loader_goes_on_in_another_process(make_cohort, tmp_path):
    """Pickled in the middle of an epoch, continued in a spawned process: the batches that were left, no other."""
    raw = make_cohort(patients=9)
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    store = ec.open(tmp_path / "s.zarr")
    loader = Loader(store, PatientPairSampler(store.index, pairs=2, seed=0), window=2800)
    batches = iter(loader)
    next(batches)
    packed = pickle.dumps(loader)
    expected = [batch.signal for batch in batches]
    assert len(expected) == len(loader) - 1 > 0
    for found in (_rest_of(pickle.loads(packed)), _in_spawned(packed)):
        assert len(found) == len(expected)
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def _in_spawned(packed: bytes) -> list[np.ndarray]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_rest_of, (pickle.loads(packed),))
