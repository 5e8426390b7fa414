"""Records that have no group and make one of their own, and records that are left out."""

import json
from collections import Counter

import numpy as np
import pytest

from ecgcohorts.errors import SpecError, StateMismatch
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.samplers import HardNegativeSampler, InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler


def with_columns(index: CohortIndex, devices: tuple[str, ...] = (), **columns: np.ndarray) -> CohortIndex:
    return CohortIndex(dict(index.columns) | columns, index.cohorts, index.sites, devices or index.devices)


def of_row(index: CohortIndex, name: str) -> np.ndarray:
    values = np.zeros(int(index["row"].max()) + 1, index[name].dtype)
    values[index["row"]] = index[name]
    return values


@pytest.fixture
def devices(index) -> CohortIndex:
    """Two recorders in every cohort: which one made a record depends on the patient and the visit."""
    visit = np.arange(len(index)) - index.patient_ptr[index["patient"]]
    code = (index["patient"] // 3 + (visit > 2)) % 2
    return with_columns(index, ("old", "new"), device=code.astype(np.int32))


@pytest.fixture
def half_known(index) -> CohortIndex:
    """The recorder is unknown in all of cohort a, and of one visit in b."""
    device = (index["patient"] % 2).astype(np.int32)
    device[index["cohort"] == 0] = -1
    device[np.flatnonzero(index["cohort"] == 1)[:1]] = -1
    return with_columns(index, ("old", "new"), device=device)


def test_records_without_a_value_are_a_group_of_each_cohort(half_known):
    """Unknown recorders of two hospitals are not one distribution."""
    grouped = {"by": "device", "unknown": "group", "small_groups": "drop"}
    sampler = InDistributionBatchSampler(half_known, 4, 0, **grouped)
    assert list(sampler.describe()["groups"]) == ["old", "new", "unknown / a"]
    assert sampler.left_out == ("unknown / b",)
    cohort, device = of_row(half_known, "cohort"), of_row(half_known, "device")
    for plan in (sampler.plan(0, step) for step in range(len(sampler))):
        if plan.cohort == "unknown / a":
            assert set(cohort[plan.rows.ravel()]) == {0}
        assert set(device[plan.rows.ravel()]) == {
            ("old", "new", plan.cohort).index(plan.cohort) if plan.cohort in ("old", "new") else -1
        }
    both = InDistributionBatchSampler(half_known, 4, 0, **grouped | {"by": ("cohort", "device")})
    assert set(both.describe()["groups"]) == {"a / unknown", "b / old", "b / new", "c / old", "c / new"}
    single = RandomBatchSampler(half_known, 1, 0, **grouped)
    assert list(single.describe()["groups"]) == ["old", "new", "unknown / a", "unknown / b"]
    whole = InDistributionBatchSampler(half_known.where(cohort="c"), 4, 0, by="device")
    same = InDistributionBatchSampler(half_known.where(cohort="c"), 4, 0, by="device", unknown="group")
    same.load_state_dict(whole.state_dict())  # nothing is unknown: one plan, one state
    with pytest.raises(SpecError, match=r"records without device.*exclude=.*unknown='group'"):
        InDistributionBatchSampler(half_known, 4, 0, by="device")
    with pytest.raises(SpecError, match="found unknown='keep', expected one of raise, group"):
        InDistributionBatchSampler(half_known, 4, 0, by="device", unknown="keep")


def test_a_device_that_is_called_unknown_is_a_device(index, half_known):
    """Its records are one group, whatever their cohort; those without a device are a group of each cohort beside it."""
    code = (index["patient"] % 2).astype(np.int32)
    named, plain = (with_columns(index, ("GE", last), device=code) for last in ("unknown", "zz"))
    for options in ({}, {"unknown": "group"}):
        sampler = InDistributionBatchSampler(named, 4, 0, by="device", **options)
        assert list(sampler.describe()["groups"]) == ["GE", "unknown"]
    classes = PatientPairSampler(named, 4, 0, balance="device")
    assert len(classes) == len(PatientPairSampler(plain, 4, 0, balance="device"))
    both = with_columns(half_known, ("GE", "unknown"), device=half_known["device"])
    single = RandomBatchSampler(both, 1, 0, by="device", unknown="group")
    assert list(single.describe()["groups"]) == ["GE", "'unknown'", "None / a", "None / b"]
    cohort, device = of_row(both, "cohort"), of_row(both, "device")
    for plan in (single.plan(0, step) for step in range(len(single))):
        found = {(int(device[row]), int(cohort[row]) if device[row] < 0 else 9) for row in plan.rows.ravel()}
        assert found == {{"GE": (0, 9), "'unknown'": (1, 9), "None / a": (-1, 0), "None / b": (-1, 1)}[plan.cohort]}
    clash = with_columns(half_known, ("old", "unknown / a"), device=half_known["device"])
    names = list(RandomBatchSampler(clash, 1, 0, by="device", unknown="group").describe()["groups"])
    assert len(set(names)) == len(names) == 4
    # Excluded, they leave the names of the others alone.
    left = RandomBatchSampler(both, 1, 0, by="device", exclude=both["device"] < 0)
    assert list(left.describe()["groups"]) == ["GE", "unknown"]


@pytest.mark.parametrize("missing", [None, np.nan, "", "nan", b""])
def test_arrays_without_a_value_are_a_group(missing):
    ids = np.repeat(np.arange(12), 2)
    cohorts = np.array(["x", "y", missing], object)[ids % 3]
    sampler = InDistributionBatchSampler.from_arrays(patients=ids, cohorts=cohorts, pairs=2, seed=0, unknown="group")
    assert list(sampler.describe()["groups"]) == ["x", "y", "unknown"]
    assert all((plan.patients % 3 == plan.patients[0] % 3).all() for plan in map(sampler.plan, [0] * 6, range(6)))
    named = np.array(["x", "unknown", missing], object)[ids % 3]
    twice = InDistributionBatchSampler.from_arrays(patients=ids, cohorts=named, pairs=2, seed=0, unknown="group")
    assert list(twice.describe()["groups"]) == ["'unknown'", "x", "None"]


# --- records left out ---


@pytest.mark.parametrize("sampler_class", [PatientPairSampler, InDistributionBatchSampler, RandomBatchSampler])
@pytest.mark.parametrize("form", ["rows", "marks"])
def test_excluded_records_are_never_drawn(devices, sampler_class, form):
    """By their rows, or by a boolean in the order of the index; patients keep their numbers and other pairs."""
    rng = np.random.default_rng(0)
    marks = rng.random(len(devices)) < 0.3
    exclude = rng.permutation(devices["row"][marks]) if form == "rows" else marks
    sampler, plain = sampler_class(devices, 4, 5, exclude=exclude), sampler_class(devices, 4, 5)
    owners, out = of_row(devices, "patient"), set(devices["row"][marks].tolist())
    drawn = Counter()
    for plan in (sampler.plan(1, step) for step in range(len(sampler))):
        assert out.isdisjoint(plan.rows.ravel().tolist())
        assert (owners[plan.rows] == plan.patients[:, None]).all()
        drawn.update(plan.rows.ravel().tolist())
    if sampler_class is RandomBatchSampler:
        assert len(drawn) >= (~marks).sum() - 3
    else:
        untouched = set(range(devices.n_patients)) - set(devices["patient"][marks].tolist())
        then = {k: sorted(r) for s in range(len(plain)) for k, r in zip(*pairs_of(plain.plan(1, s)), strict=True)}
        now = {k: sorted(r) for s in range(len(sampler)) for k, r in zip(*pairs_of(sampler.plan(1, s)), strict=True)}
        common = untouched & set(then) & set(now)
        assert len(common) > 20
        assert all(then[patient] == now[patient] for patient in common)
    with pytest.raises(StateMismatch, match="exclude"):
        sampler_class(devices, 4, 5, exclude=devices["row"][:1]).load_state_dict(sampler.state_dict())
    with pytest.raises(StateMismatch):
        plain.load_state_dict(sampler.state_dict())
    nobody = sampler_class(devices, 4, 5, exclude=[])
    nobody.load_state_dict(plain.state_dict())
    again = sampler_class(devices, 4, 5, exclude=devices["row"][marks])
    again.load_state_dict(json.loads(json.dumps(sampler.state_dict())))


def pairs_of(plan) -> tuple[list[int], list[list[int]]]:
    return plan.patients.tolist(), plan.rows.tolist()


def test_what_is_excluded_may_lack_a_group_a_class_or_an_id(half_known):
    """The remedy that messages name works."""
    unknown = half_known["device"] < 0
    sampler = InDistributionBatchSampler(half_known, 4, 0, by="device", exclude=unknown)
    assert list(sampler.describe()["groups"]) == ["old", "new"]
    labelled = with_columns(
        half_known, label_af=np.where(unknown, np.nan, half_known["patient"] % 2).astype(np.float32)
    )
    balanced = PatientPairSampler(labelled, 8, 0, balance="af", exclude=unknown)
    array = PatientPairSampler(labelled, 8, 0, balance=labelled["label_af"].astype(object), exclude=unknown)
    assert all((balanced.plan(0, step).patients % 2).sum() == 4 for step in range(len(balanced)))
    assert all((array.plan(0, step).patients % 2).sum() == 4 for step in range(len(array)))
    ids = [None if lost else int(patient) for lost, patient in zip(unknown, half_known["patient"], strict=True)]
    table = {"patients": ids, "cohorts": np.where(unknown, None, "x"), "days": np.where(unknown, None, 1.0)}
    made = InDistributionBatchSampler.from_arrays(
        **table, pairs=8, seed=0, exclude=unknown, balance=half_known["patient"] % 2
    )
    rows = np.concatenate([made.plan(0, step).rows.ravel() for step in range(len(made))])
    assert not unknown[rows].any()
    owners = half_known["patient"][made.plan(0, 0).rows]
    assert (owners == owners[:, :1]).all()
    singles = RandomBatchSampler.from_arrays(patients=ids, batch_size=8, seed=0, exclude=np.flatnonzero(unknown))
    assert not unknown[np.concatenate(list(singles))].any()


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ([10**6], "found 1 rows in exclude that are not there, such as 1000000"),
        ([0.5], "found exclude of float64"),
        ([True, False], r"found exclude of bool and shape \(2,\)"),
        (["0"], "found exclude of <U1"),
        ([0, 1] * 12, "found exclude of 24 zeros and ones for as many records, expected rows, or booleans"),
        (np.ones(24, bool), "found every record in exclude"),
        (np.ma.masked_equal(np.arange(24) % 2 == 0, False), "found exclude of bool"),
    ],
)
def test_what_cannot_be_excluded_is_refused(exclude, message):
    with pytest.raises(SpecError, match=message):
        PatientPairSampler.from_arrays(patients=np.repeat(np.arange(12), 2), pairs=2, seed=0, exclude=exclude)
    with pytest.raises(SpecError, match="unequal length 24 and 23"):
        PatientPairSampler.from_arrays(
            patients=np.repeat(np.arange(12), 2), days=np.zeros(23), pairs=2, seed=0, exclude=[1]
        )


def test_what_is_excluded_may_be_masked_and_columns_may_be_tuples():
    """In every array with an entry per record: what is not drawn need have no value."""
    ids = np.repeat(np.arange(16), 3)
    out = np.zeros(48, bool)
    out[[5, 17, 18]] = True
    whole = {"pairs": 4, "seed": 0, "exclude": out}
    days, near, half = np.arange(48.0), ids % 7 + 0.5, ids % 2 + 0.0
    forms = {
        "days": [days, np.where(out, np.nan, days), np.ma.array(days, mask=out), tuple(days.tolist())],
        "balance": [half, np.ma.array(half, mask=out), np.where(out, np.nan, half), tuple(half.tolist())],
        "patients": [ids, np.ma.array(ids, mask=out), tuple(ids.tolist())],
        "identities": [ids, np.ma.array(ids, mask=out), tuple(ids.tolist())],
    }
    for name, given in forms.items():
        bounds = {"max_gap_days": 2} if name == "days" else {}
        arrays = [{"patients": ids} | {name: form} for form in given]
        made = [PatientPairSampler.from_arrays(**whole, **bounds, **form) for form in arrays]
        assert len({sampler.plan(1, 2).rows.tobytes() for sampler in made}) == 1, name
    for name, form in (
        ("days", forms["days"][2]),
        ("balance", forms["balance"][1]),
        ("patients", forms["patients"][1]),
    ):
        with pytest.raises(SpecError, match=f"masked values in {name}"):
            PatientPairSampler.from_arrays(**{"patients": ids, "pairs": 4, "seed": 0, name: form})
    arrays = {"patients": ids, "cohorts": ids * 0, "neighbourhood": 2} | whole
    hard = [HardNegativeSampler.from_arrays(near=form, **arrays) for form in (near, np.ma.array(near, mask=out))]
    assert hard[0].plan(1, 2).rows.tobytes() == hard[1].plan(1, 2).rows.tobytes()
