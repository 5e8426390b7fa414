"""Values that projects bring: dates, ids, names of groups, classes. They mean what they say, or are refused in one line."""

import datetime

import numpy as np
import pandas as pd
import pytest

from ecgcohorts.errors import PlanImpossible, SpecError, StateMismatch
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler

BOTH = [PatientPairSampler, InDistributionBatchSampler]
TWO = np.repeat(np.arange(8), 2)


def of(sampler_class=PatientPairSampler, **arrays):
    arrays = {"patients": TWO, "cohorts": TWO * 0, "pairs": 4, "seed": 0} | arrays
    return sampler_class.from_arrays(**arrays)


# --- days ---

DAY = np.array([14_000.25, 14_020.5, 14_400.0, np.nan] * 8)  # in 1970 + 38 years; None of the last is known
STAMPS = pd.to_datetime(pd.Series(DAY), unit="D").dt.round("s")
AS_DATES = {
    **{f"datetime64[{unit}]": STAMPS.to_numpy().astype(f"datetime64[{unit}]") for unit in ("s", "ms", "us", "ns")},
    "Series": STAMPS,
    "Series[us]": STAMPS.astype("datetime64[us]"),
    "with a zone": STAMPS.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
    "Timestamps": STAMPS.astype(object).to_numpy(),
    "datetime": [None if pd.isna(one) else one.to_pydatetime() for one in STAMPS],
    "hours": (STAMPS - pd.Timestamp(0)).to_numpy().astype("timedelta64[h]"),
    "microseconds": (STAMPS - pd.Timestamp(0)).to_numpy().astype("timedelta64[us]"),
    "timedelta": [None if pd.isna(one) else datetime.timedelta(seconds=one * 86_400) for one in DAY],
    "numbers and None": [None if np.isnan(one) else float(one) for one in DAY],
    "Float64": pd.Series(DAY, dtype="Float64"),
    "strings of pandas": pd.Series(STAMPS, dtype="object"),
}


@pytest.mark.parametrize("kind", AS_DATES)
def test_dates_of_any_kind_are_days(kind):
    """Bounds of 20 to 20.5 days allow one pair of each patient's four records, in whatever form the dates come."""
    patients = np.repeat(np.arange(8), 4)
    bounds = {"min_gap_days": 20, "max_gap_days": 20.5}
    sampler = of(patients=patients, cohorts=None, days=AS_DATES[kind], **bounds)
    numbers = of(patients=patients, cohorts=None, days=DAY, **bounds)
    for epoch in range(3):
        plan = sampler.plan(epoch, 0)
        assert (np.sort(plan.rows % 4, axis=1) == [0, 1]).all()
        assert np.array_equal(plan.rows, numbers.plan(epoch, 0).rows)
    if kind != "hours":
        with pytest.raises(PlanImpossible):
            of(patients=patients, cohorts=None, days=AS_DATES[kind], max_gap_days=20)


def test_days_as_dates_without_times():
    dates = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 31)] * 8
    for days in (dates, np.array(dates, "datetime64[D]"), np.array(dates, "datetime64[D]").astype("datetime64[h]")):
        assert len(of(days=days, min_gap_days=30, max_gap_days=30).plan(0, 0)) == 4
        with pytest.raises(PlanImpossible):
            of(days=days, max_gap_days=29.9)


@pytest.mark.parametrize(
    ("days", "named"),
    [
        (["2020-01-01", "2020-01-02"] * 8, "days of <U10, expected numbers of days, dates or durations"),
        (np.array(["2020-01-01", None] * 8, object), "found text in days"),
        (np.array([[1]] * 16, object)[:, 0:0].tolist(), "shape"),
        (np.ma.masked_equal([1.0, 2.0] * 8, 2.0), "masked values in days"),
        (np.array([True, False] * 8), "days of bool"),
        (np.array([1j, 2j] * 8), "days of complex128"),
        (np.array([1, 2] * 8, "timedelta64"), "without a unit"),
        (np.array([1, 2] * 8, "timedelta64[M]"), "expected days or a shorter unit"),
        (np.array([1.0, pd.Timestamp("2020-01-01")] * 8, object), "neither numbers nor dates"),
        (np.array([0.0, 3e6] * 8), "dates 3000000 days apart"),
        (np.array(["500000-01-01", "2020-01-01"] * 8, "datetime64[s]"), r"days of datetime64\[s\] that are too far"),
        (np.array([10**9, 1] * 8, "timedelta64[D]"), "too far away for microseconds"),
    ],
)
def test_what_is_no_date_is_refused(days, named):
    with pytest.raises(SpecError, match=named):
        of(days=days, max_gap_days=30)


@pytest.mark.parametrize("sampler_class", BOTH)
def test_the_most_recent_records_are_those_with_the_latest_dates(sampler_class):
    """Undated ones are left out, wherever they stand in the table; an infinite date is none."""
    days = np.array([3, np.nan, 9, 5, np.inf, 7] * 8)
    sampler = of(sampler_class, patients=np.repeat(np.arange(8), 6), cohorts=np.zeros(48), days=days, draw="latest")
    for epoch in range(3):
        assert {tuple(sorted(rows)) for rows in (sampler.plan(epoch, 0).rows % 6).tolist()} == {(2, 5)}
    few = np.array([3, np.nan, np.nan, np.nan] * 4 + [np.nan] * 16)
    arrays = {"patients": np.repeat(np.arange(8), 4), "cohorts": np.zeros(32), "days": few, "draw": "latest"}
    with pytest.raises(PlanImpossible, match="too few patients with 2 records"):
        of(sampler_class, **arrays)
    plan = of(sampler_class, **arrays, singles="self", pairs=8).plan(0, 0)
    known = plan.patients < 4
    assert plan.is_self[known].all()
    assert (plan.rows[known] % 4 == 0).all()  # the only one with a date, twice
    assert (plan.rows[~known, 0] != plan.rows[~known, 1]).all()  # no dates: any
    with pytest.raises(SpecError, match="draw='latest' but no dates"):
        of(sampler_class, draw="latest")


def test_an_index_whose_records_are_not_in_the_order_of_time(index):
    """A store that grew in two runs. States saved when the order was trusted are refused by name."""
    days = index["days"].copy()
    days[::2] += 3000
    days[::7] = np.nan
    grown = CohortIndex(dict(index.columns) | {"days": days}, index.cohorts)
    sampler = PatientPairSampler(grown, 8, 0, draw="latest")
    when = dict(zip(grown["row"].tolist(), days.tolist(), strict=True))
    for step in range(len(sampler)):
        plan = sampler.plan(0, step)
        for patient, rows in zip(plan.patients.tolist(), plan.rows.tolist(), strict=True):
            dated = sorted(day for row in grown.rows_of(patient).tolist() if not np.isnan(day := when[row]))
            assert sorted(when[row] for row in rows) == dated[-2:]
    state = sampler.state_dict()
    state.pop("latest")
    with pytest.raises(StateMismatch):
        sampler.load_state_dict(state)
    assert "latest" not in PatientPairSampler(index, 8, 0, draw="latest").state_dict()


# --- ids ---


@pytest.mark.parametrize("name", ["patients", "cohorts", "identities"])
@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.ma.masked_equal(TWO, 3), "masked values in NAME"),
        (np.where(TWO == 3, "", TWO.astype(str)), "'' in NAME"),
        (np.where(TWO == 3, "nan", TWO.astype(str)), "'nan' in NAME"),
        (np.where(TWO == 3, None, TWO.astype(object)), "2 missing values in NAME"),
        (pd.Series(np.where(TWO == 3, None, TWO), dtype="Int64"), "2 missing values in NAME"),
        (np.where(TWO == 3, np.nan, TWO), "2 missing values in NAME"),
        (np.where(TWO == 3, "Zürich".encode("latin-1"), b"x").astype(object), r"b'Z\\xfcrich' in NAME, expected UTF-8"),
    ],
)
def test_what_is_no_id_is_refused_by_name(name, values, named):
    with pytest.raises(SpecError, match=named.replace("NAME", name)) as caught:
        of(**{name: values})
    assert "\n" not in str(caught.value)
    if "UTF-8" not in named and "masked" not in named:
        assert ("unknown='group'" in str(caught.value)) == (name == "cohorts")


@pytest.mark.parametrize("name", ["patients", "identities"])
def test_float_ids_that_may_have_been_rounded_are_refused(name):
    for kind in (np.float32, np.float16):
        with pytest.raises(SpecError, match=f"found {name} of {np.dtype(kind)}"):
            of(**{name: TWO.astype(kind)})
    with pytest.raises(SpecError, match=r"above 2\*\*53"):
        of(**{name: TWO + 2.0**60})
    assert np.array_equal(of(**{name: TWO.astype(float)}).plan(0, 0).rows, of(**{name: TWO}).plan(0, 0).rows)


def test_bytes_are_text():
    """As h5py hands them out: fixed width or objects."""
    names = np.array(["Zürich", "field"])[TWO % 2]
    expected = of(InDistributionBatchSampler, cohorts=names)
    as_bytes = np.array([name.encode() for name in names])
    for cohorts in (
        as_bytes,
        as_bytes.astype(object),
        list(as_bytes),
        np.where(TWO < 4, names, as_bytes.astype(object)),
    ):
        sampler = of(InDistributionBatchSampler, cohorts=cohorts)
        assert list(sampler.describe()["groups"]) == ["Zürich", "field"]
        assert np.array_equal(sampler.plan(0, 1).rows, expected.plan(0, 1).rows)
    ids = np.array([f"p{number}".encode() for number in TWO])
    assert np.array_equal(of(patients=ids).plan(0, 0).rows, of(patients=ids.astype(str)).plan(0, 0).rows)


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (1, "1", ["1", "'1'"]),
        (None, "None", []),
        (("a / b", "c"), ("a", "b / c"), ["('a', 'b / c')", "('a / b', 'c')"]),
    ],
)
def test_groups_that_read_alike_stay_two(first, second, names):
    which = np.repeat([0, 1], 16)
    if isinstance(first, tuple):
        cohorts = tuple(np.array([first[at], second[at]])[which] for at in (0, 1))
    else:
        cohorts = [(first, second)[one] for one in which]
    arrays = {"patients": np.repeat(np.arange(16), 2), "cohorts": cohorts, "pairs": 2, "seed": 0}
    if not names:
        with pytest.raises(SpecError, match=r"'None' in cohorts"):
            InDistributionBatchSampler.from_arrays(**arrays)
        return
    for shuffle in (np.arange(32), np.random.default_rng(0).permutation(32)):
        mixed = (
            tuple(column[shuffle] for column in cohorts)
            if isinstance(cohorts, tuple)
            else [cohorts[k] for k in shuffle]
        )
        one = arrays | {"cohorts": mixed, "patients": arrays["patients"][shuffle]}
        sampler = InDistributionBatchSampler.from_arrays(**one, weights=dict.fromkeys(names, 1))
        assert list(sampler.describe()["groups"]) == names
        plans = [sampler.plan(0, step) for step in range(len(sampler))]
        assert {plan.cohort for plan in plans} == set(names)
        assert all(len(set((plan.patients // 8).tolist())) == 1 for plan in plans)
        orders = [[plan.patients.tolist() for plan in plans if plan.cohort == name] for name in names]
        assert [[k % 8 for k in batch] for batch in orders[0]] != [[k % 8 for k in batch] for batch in orders[1]]


def test_columns_of_an_index_that_read_alike_stay_two_groups(index):
    made = CohortIndex(
        dict(index.columns) | {"device": (index["patient"] % 2).astype(np.int32)},
        ("x", "x / y", "z"),
        index.sites,
        ("y / w", "w"),
    )
    groups = InDistributionBatchSampler(made, 4, 0, by=("cohort", "device")).describe()["groups"]
    assert len(groups) == 6
    assert {"('x', 'y / w')", "('x / y', 'w')", "z / w"} <= set(groups)


def test_one_id_of_two_cohorts_is_told_apart_by_units():
    ids = np.tile(TWO, 2)
    sampler = PatientPairSampler.from_arrays(patients=ids, cohorts=np.repeat([0, 1], 16), pairs=16, seed=0)
    plan = sampler.plan(0, 0)
    assert sorted(plan.patients.tolist()) == sorted([*range(8), *range(8)])
    assert sorted(plan.units.tolist()) == list(range(16))
    halves = [sampler.plan(0, 0, rank, 2).units for rank in (0, 1)]
    assert np.array_equal(np.concatenate(halves), plan.units)
    padded = of(pairs=6, last="pad").plan(0, 1)
    assert (padded.units == -1).sum() == 4


# --- classes ---


@pytest.mark.parametrize(
    "unknown", [np.nan, None, pd.NA, "", "nan", b"", pd.NaT], ids=["nan", "None", "NA", "empty", "text", "bytes", "NaT"]
)
@pytest.mark.parametrize("sampler_class", [*BOTH, RandomBatchSampler])
def test_records_without_a_class_are_refused(sampler_class, unknown):
    texts = isinstance(unknown, str | bytes)
    classes = np.array(["low", "high", unknown] if texts else [0, 1, unknown], object)[TWO % 3]
    sized = {"batch_size" if sampler_class is RandomBatchSampler else "pairs": 4}
    for balance in (classes, classes.tolist()):
        with pytest.raises(SpecError, match="found 4 records without a class in balance") as caught:
            sampler_class.from_arrays(patients=TWO, cohorts=TWO * 0, seed=0, balance=balance, **sized)
        assert isinstance(caught.value, TypeError)  # as None was refused before


def test_classes_of_any_type():
    expected = of(balance=TWO % 2).plan(0, 0).rows
    for balance in (pd.Series(TWO % 2, dtype="Int64"), (TWO % 2).tolist()):
        assert np.array_equal(of(balance=balance).plan(0, 0).rows, expected)
    mixed = of(balance=np.array([1, "1"], object)[TWO % 2])
    assert all((mixed.plan(0, step).patients % 2).sum() == 2 for step in range(2))
    texts = of(balance=np.array(["low", "high"])[TWO % 2]).plan(0, 1).rows
    assert np.array_equal(of(balance=np.array([b"low", b"high"])[TWO % 2]).plan(0, 1).rows, texts)
    with pytest.raises(SpecError, match="masked values in balance"):
        of(balance=np.ma.masked_equal(TWO % 2, 1))


@pytest.mark.parametrize("sampler_class", BOTH)
def test_a_class_of_singles_does_not_vanish(sampler_class):
    patients = np.concatenate([TWO, np.arange(8, 14)])  # six more with one record each
    arrays = {"patients": patients, "cohorts": patients * 0, "balance": np.where(patients < 8, "old", "young")}
    with pytest.raises(PlanImpossible, match=r"nobody with enough records in classes young.*singles='self'"):
        of(sampler_class, **arrays)
    plan = of(sampler_class, **arrays, singles="self").plan(0, 0)
    assert (plan.patients >= 8).sum() == 2
