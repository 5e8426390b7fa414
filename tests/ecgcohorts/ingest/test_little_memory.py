"""What planning and committing compute in little memory, against the plain forms that stand here."""

from datetime import datetime

import numpy as np
import pytest

from ecgcohorts.index import contradictions
from ecgcohorts.index.contradictions import PatientCheck
from ecgcohorts.ingest import _gathered, _ids, _seen, commit, ingest, run
from ecgcohorts.ingest.plan import Plan


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module, name in ((_gathered, "BLOCK"), (commit, "BLOCK"), (_ids, "_AT_ONCE"), (_seen, "_AT_ONCE")):
        monkeypatch.setattr(module, name, 7)
    monkeypatch.setattr(contradictions, "_PATIENTS_AT_ONCE", 3)


def some_ids(rng: np.random.Generator, n: int, different: int) -> np.ndarray:
    """Pseudonyms that often share their first half."""
    kinds = rng.integers(0, 256, (max(different, 1), 16), dtype=np.uint8)
    kinds[::2, :8] = kinds[0, :8]
    return kinds[rng.integers(0, len(kinds), n)]


@pytest.mark.parametrize("n", [0, 1, 2, 6, 7, 8, 14, 15, 200])
def test_a_column_taken_in_blocks_is_the_column_taken_at_once(n):
    rng = np.random.default_rng(n)
    column = rng.integers(0, 99, (n, 3))
    for order in (rng.permutation(n).astype(np.int32), rng.permutation(n)[: n // 2]):
        np.testing.assert_array_equal(_gathered._taken(column, order), column[order])


@pytest.mark.parametrize("n", [0, 1, 2, 6, 7, 8, 14, 15, 200])
@pytest.mark.parametrize("sorted_by_patient", [True, False])
def test_patients_are_numbered_by_first_appearance(n, sorted_by_patient):
    rng = np.random.default_rng(n)
    cohort = np.sort(rng.integers(0, 3, n)).astype(np.int32)
    ids = some_ids(rng, n, n // 3)
    if sorted_by_patient:
        ids = ids[np.lexsort((*ids.T, cohort))]
    numbers: dict[tuple[int, bytes], int] = {}
    expected = [numbers.setdefault((int(c), i.tobytes()), len(numbers)) for c, i in zip(cohort, ids, strict=True)]
    found = commit._number_patients(cohort, ids)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 2, 6, 7, 8, 14, 15, 200])
def test_the_original_of_equal_waveforms_is_the_first_of_lowest_rank(n):
    rng = np.random.default_rng(n)
    digests, among, rank = some_ids(rng, n, n // 2), rng.random(n) < 0.7, rng.integers(-1, 3, n)
    expected = [
        min(
            (other for other in range(n) if among[other] and (digests[other] == digests[row]).all()),
            key=lambda other: (rank[other], other),
        )
        if among[row]
        else row
        for row in range(n)
    ]
    assert commit._first_like(digests, among, rank).tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 8, 100])
def test_ids_are_found_where_they_first_stand(n):
    rng = np.random.default_rng(n)
    among, wanted = some_ids(rng, n, n), some_ids(np.random.default_rng(n), n, n)
    wanted[n // 2 :] ^= 1
    places = {}
    for place, one in enumerate(among):
        places.setdefault(one.tobytes(), place)
    assert _ids._places_of(wanted, among).tolist() == [places.get(one.tobytes(), -1) for one in wanted]


def test_patients_are_checked_some_at_a_time_as_all_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    for _ in range(50):
        counts = rng.integers(1, 6, rng.integers(1, 30))
        starts, n = np.cumsum(counts) - counts, counts.sum()
        facts = (
            rng.integers(-1, 2, n).astype(np.int8),
            np.where(rng.random(n) < 0.2, np.nan, rng.integers(20, 95, n)).astype(np.float32),
            np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 9000, n)),
        )
        monkeypatch.setattr(contradictions, "_PATIENTS_AT_ONCE", 3)
        by_parts = PatientCheck.of_columns(starts, *facts)
        monkeypatch.setattr(contradictions, "_PATIENTS_AT_ONCE", 1 << 20)
        assert by_parts == PatientCheck.of_columns(starts, *facts)


def test_times_become_days_and_unknown_ones_nothing():
    times = [None, *(datetime(2010, 1, day) for day in range(1, 20)), None]
    microseconds = np.array([_gathered._microseconds(time) for time in times])
    gathered = _gathered._Gathered.__new__(_gathered._Gathered)
    gathered._time, seen = microseconds.copy(), {}
    gathered._patient, gathered._sex = bytearray(16 * len(times)), np.zeros(len(times), np.int8)
    gathered._age = np.zeros(len(times), np.float32)
    check = PatientCheck.of_columns

    def keep(starts, sex, age, days):
        seen["days"] = days.copy()
        return check(starts, sex, age, days)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatientCheck, "of_columns", keep)
        gathered.check(np.arange(len(times), dtype=np.int32))
    expected = [np.nan if time is None else (time - datetime.min).total_seconds() / 86400 for time in times]
    np.testing.assert_array_equal(seen["days"], expected)
    np.testing.assert_array_equal(gathered._time, microseconds)


def test_a_plan_without_its_inputs_has_all_else(make_cohort, tmp_path, monkeypatch):
    raw = make_cohort(patients=4)
    seen = []
    monkeypatch.setattr(run, "_commit", lambda plan, *_: seen.append(plan))
    whole = Plan.without_inputs
    monkeypatch.setattr(Plan, "without_inputs", lambda plan: seen.append(plan) or whole(plan))
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    plan, bare = seen
    [part] = plan.header.partitions
    names = [name for name in plan.rows(part).column_names if name not in ("path", "entry")]
    assert bare.rows(part, names).equals(plan.rows(part, names))
    with pytest.raises(KeyError):
        bare.rows(part, ["path"])
    assert bare._rows.nbytes < plan._rows.nbytes
