"""Splits: nobody on two sides, and the same for everyone who writes the same rule."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ecgcohorts as ec
from ecgcohorts.errors import SpecError
from ecgcohorts.index import splits
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex, number_ids
from ecgcohorts.index.rules import IdentityMap, SplitDefinition

IDS = st.one_of(
    st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8).map(lambda half: bytes(8) + half)
)
THREE = {"train": 0.8, "val": 0.1, "test": 0.1}


def make_index(patients: int, seed: int = 0, cohorts: tuple[str, ...] = ("a", "b", "c"), **columns) -> CohortIndex:
    """1 to 4 records a patient, cohorts in turn; ids follow from the patient's number, waveforms are all different."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 1 + np.arange(patients) % 4)
    n = len(patient)
    made = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    made |= {name: rng.integers(0, 256, (n, 16), np.uint8) for name in BYTE_COLUMNS}
    made |= {"row": np.arange(n), "patient": patient, "cohort": (patient % len(cohorts)).astype(np.int32)}
    made["patient_id"] = np.random.default_rng(99).integers(0, 256, (patients, 16), np.uint8)[patient]
    made["days"] = (100.0 * (np.arange(n) - np.searchsorted(patient, patient))).astype(np.float32)
    return CohortIndex(made | columns, cohorts)


def sides(split, index) -> dict[bytes, set]:
    """Parts that each patient has recordings in."""
    found: dict[bytes, set] = {}
    for patient, part in zip(index["patient_id"], split.names(index), strict=True):
        found.setdefault(patient.tobytes(), set()).add(part)
    return found


def pairs_of(index, *patients) -> list[tuple[str, str]]:
    ids = index.patient_ids
    return [(ids[one].tobytes().hex(), ids[other].tobytes().hex()) for one, other in patients]


def all_kinds(index) -> list[splits.Split]:
    fold = np.where(index["cohort"] == 0, index["patient"] % 10 + 1, np.nan).astype(np.float32)
    with_fold = CohortIndex({**index.columns, "label_strat_fold": fold}, index.cohorts)
    return [
        splits.by_patient(index, THREE, "study"),
        splits.by_time(index, {"early": 150, "late": None}, "when"),
        splits.ptb_xl_folds(with_fold),
        splits.leave_cohort_out(index, "b", "lodo-b", {"train": 0.9, "val": 0.1}),
        splits.nested(index, "curve"),
    ]


def test_by_patient_shares_patients_out():
    index = make_index(2000)
    split = splits.by_patient(index, THREE, "study")
    assert split.parts == ("train", "val", "test")
    assert all(len(parts) == 1 for parts in sides(split, index).values())
    share = {name: part.n_patients / 2000 for name, part in split.of(index).items()}
    assert share == pytest.approx(THREE, abs=0.03)  # 3 standard deviations
    assert sum(map(len, split.of(index).values())) == len(index)
    other = splits.by_patient(index, THREE, "another")
    assert np.mean(other.column(index) == split.column(index)) < 0.8  # 0.66 by chance


def test_by_patient_is_the_split_of_the_index():
    index = make_index(300)
    for name, part in index.split_by_patient(THREE, "study").items():
        np.testing.assert_array_equal(part["row"], splits.by_patient(index, THREE, "study").of(index)[name]["row"])


def test_a_patients_part_is_frozen():
    """If this fails, every split by patient ever made changes: SHA-256 of name and pseudonym, its first 8 bytes."""
    index = make_index(16)
    index["patient_id"][:] = index["patient"][:, None]
    code = splits.by_patient(index, {"train": 0.5, "test": 0.5}, "golden").column(index)
    assert "".join(map(str, code[index.patient_ptr[:-1]])) == "1100101101100011"


@settings(max_examples=30, deadline=None)
@given(more=st.integers(1, 60), seed=st.integers(0, 5))
def test_patients_stay_when_others_are_added(more, seed):
    small, large = make_index(60, cohorts=("a",)), make_index(60 + more, seed, ("a",))
    large["patient_id"][: len(small)] = small["patient_id"]
    for make in (
        lambda index: splits.by_patient(index, THREE, "study"),
        lambda index: splits.nested(index, "curve"),
    ):
        before, after = sides(make(small), small), sides(make(large), large)
        assert all(after[patient] == parts for patient, parts in before.items())


@pytest.mark.parametrize("place", range(5))
def test_every_kind_keeps_patients_and_waveforms_apart(place):
    index = make_index(400)
    split = all_kinds(index)[place]
    split.assert_disjoint(index)
    assert all(len(parts - {None}) <= 1 for parts in sides(split, index).values())
    assert {name for parts in sides(split, index).values() for name in parts} - {None} == set(split.parts)
    again = SplitDefinition.model_validate_json(split.definition.model_dump_json())
    assert again == split.definition
    assert json.loads(split.definition.model_dump_json())["name"] == split.name
    if place != 2:  # whose label only its own index has
        repeated = splits.make_split(index, split.name, again.rule)
        np.testing.assert_array_equal(repeated.column(index), split.column(index))


def test_by_time_tests_on_what_came_later():
    index = make_index(40)
    split = splits.by_time(index, {"train": 150, "test": None}, "when")
    parts = split.of(index)
    assert parts["train"]["days"].max() == 100
    assert parts["test"]["days"].min() == 200
    count = np.diff(index.patient_ptr)
    assert parts["train"].n_patients == (count <= 2).sum()
    assert parts["test"].n_patients == (count > 2).sum()
    code = split.column(index)
    late = np.repeat(count > 2, count)
    assert (code[late & (index["days"] < 150)] == splits.UNASSIGNED).all()  # their past would give them away


def test_by_time_by_the_calendar_and_with_an_end():
    year = np.where(np.arange(50) % 7 == 0, np.nan, 2000 + np.arange(50)).astype(np.float32)
    index = make_index(20, label_year=year)
    assert len(index) == 50
    split = splits.by_time(index, {"train": 2020, "val": 2030, "test": 2040}, "era", column="label_year")
    for name, low, high in (("train", 2000, 2020), ("val", 2020, 2030), ("test", 2030, 2040)):
        years = split.of(index)[name]["label_year"]
        assert len(years)
        assert ((years >= low) & (years < high)).all()


def test_by_label_refuses_folds_that_cut_a_patient():
    fold = (np.arange(50) % 2).astype(np.float32)
    index = make_index(20, label_fold=fold)
    with pytest.raises(SpecError, match="15 patients in more than one of a, b, expected none"):
        splits.by_label(index, "fold", {"a": [0], "b": [1]}, "folds")
    with pytest.raises(SpecError, match="no index column 'label_other'"):
        splits.by_label(index, "other", {"a": [0]}, "folds")


def test_ptb_xl_folds_leave_other_cohorts_alone():
    index = make_index(100)
    fold = np.where(index["cohort"] == 1, index["patient"] % 10 + 1, np.nan).astype(np.float32)
    index = CohortIndex({**index.columns, "label_strat_fold": fold}, index.cohorts)
    split = splits.ptb_xl_folds(index)
    for name, folds in (("train", range(1, 9)), ("val", [9]), ("test", [10])):
        assert set(split.of(index)[name]["label_strat_fold"].tolist()) == set(folds)
    assert (split.column(index)[index["cohort"] != 1] == splits.UNASSIGNED).all()


def test_leaving_a_cohort_out_leaves_its_people_out():
    index = make_index(90)
    of_b, of_a = 1, 3  # patients of cohorts b and a
    same = pairs_of(index, (of_b, of_a))
    plain, careful = (splits.leave_cohort_out(index, "b", "lodo", same=one) for one in ((), same))
    assert plain.parts == careful.parts == ("train", "test")
    assert set(careful.of(index)["test"].to_pandas()["cohort"]) == {"b"}
    assert (plain.column(index)[index["patient"] == of_a] == 0).all()
    assert (careful.column(index)[index["patient"] == of_a] == splits.UNASSIGNED).all()
    assert (careful.column(index) != plain.column(index)).sum() == (index["patient"] == of_a).sum()
    with pytest.raises(SpecError, match="1 patients in more than one of train, test"):
        plain.assert_disjoint(index, same)
    careful.assert_disjoint(index, same)
    with pytest.raises(SpecError, match="no cohort 'd', expected one of a, b, c"):
        splits.leave_cohort_out(index, "d", "lodo")


def test_nested_shares_contain_the_smaller():
    index = make_index(4000)
    split = splits.nested(index, "curve")
    assert split.parts == ("1%", "2%", "5%", "10%", "20%", "50%", "100%")
    assert split.is_nested
    before: set = set()
    for name, part in split.of(index).items():
        rows = set(part["row"].tolist())
        assert before < rows
        before = rows
        assert part.n_patients / 4000 == pytest.approx(float(name[:-1]) / 100, abs=0.025)
    assert len(before) == len(index)


def test_a_share_of_the_training_part_is_a_fair_share():
    index = make_index(3000)
    train = splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study").of(index)["train"]
    tenth = splits.nested(train, "study", [10]).of(train)["10%"]  # the same name must not mean the same draws
    assert tenth.n_patients / train.n_patients == pytest.approx(0.1, abs=0.025)


def test_an_identity_map_joins_people_over_any_number_of_steps():
    index = make_index(200)
    same = pairs_of(index, (0, 50), (50, 120), (7, 8))
    outside = "ff" * 16
    same += [(same[0][0], outside), (outside, index.patient_ids[199].tobytes().hex())]
    split = splits.by_patient(index, THREE, "study", same)
    part = dict(enumerate(split.names(index)[index.patient_ptr[:-1]]))
    assert part[0] == part[50] == part[120] == part[199]
    assert part[7] == part[8]
    person = splits.identities(index, same)
    assert len(np.unique(person)) == 200 - 4
    assert split.definition.identities == splits.by_patient(index, THREE, "x", same[::-1]).definition.identities
    assert split.definition.identities != splits.by_patient(index, THREE, "x", same[:2]).definition.identities
    halves = [index.take(index["patient"] % 2 == side) for side in (0, 1)]  # 7 and 8 see different indexes
    for half in halves:
        alone = splits.by_patient(half, THREE, "study", same)
        np.testing.assert_array_equal(alone.column(half), split.column(half))


def test_joined_people_feed_a_sampler():
    index = make_index(60)
    person = splits.identities(index, pairs_of(index, (0, 3), (4, 7)))
    sampler = ec.PatientPairSampler(index, pairs=2, seed=0, identities=person, singles="self")
    assert [group["patients"] for group in sampler.describe()["groups"].values()] == [58]


@pytest.mark.parametrize("same", [[("00",)], [("00", "11")], [("zz" * 16, "00" * 16)], [(b"1" * 16, b"2")]])
def test_a_wrong_identity_map_is_refused(same):
    with pytest.raises(SpecError, match="identity map"):
        splits.by_patient(make_index(4), THREE, "study", same)


def test_waveforms_are_compared_across_stores():
    a, b = make_index(30), make_index(30, seed=1)
    b["patient_id"][:] += 1
    splits.assert_disjoint({"train": a, "test": b})
    b["waveform_digest"][5] = a["waveform_digest"][11]
    with pytest.raises(SpecError, match="1 waveforms in more than one of train, test"):
        splits.assert_disjoint({"train": a, "test": b})
    with pytest.raises(SpecError, match="1 patients in more"):
        splits.assert_disjoint({"train": a, "test": b}, [(a["patient_id"][0].tobytes(), b["patient_id"][-1].tobytes())])


def test_a_copy_on_the_other_side_is_refused():
    index = make_index(100)
    code = splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study").column(index)
    one, other = np.flatnonzero(code == 0)[0], np.flatnonzero(code == 1)[0]
    index["waveform_digest"][one] = index["waveform_digest"][other]
    with pytest.raises(SpecError, match=r"1 waveforms in more than one of train, test.*ec\.open"):
        splits.by_patient(index, {"train": 0.5, "test": 0.5}, "study")


def test_a_split_finds_its_recordings_anywhere():
    index = make_index(300)
    split = splits.by_patient(index, THREE, "study")
    order = index.take(index["age"] < -1)
    assert len(split.column(order)) == 0
    part = index.take(np.arange(len(index)) % 3 == 0)
    np.testing.assert_array_equal(split.column(part), split.column(index)[np.arange(len(index)) % 3 == 0])
    assert (split.column(make_index(20, seed=5)) == splits.UNASSIGNED).all()
    only = split.on(part)
    assert (only.column(index) >= 0).sum() == len(part)
    frame = split.summary(index)
    assert frame["recordings"].sum() == len(index)
    assert frame["patients"].sum() == 300
    assert frame[frame["cohort"] == "b"]["part"].tolist() == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda i: splits.by_patient(i, {"train": 0.5}, "s"), "summing to 0.5, expected 1"),
        (lambda i: splits.by_patient(i, {"train": 1.5, "test": -0.5}, "s"), "fraction of -0.5"),
        (lambda i: splits.by_patient(i, {}, "s"), "expected 1 to 127"),
        (lambda i: splits.by_patient(i, THREE, "My Study"), "split 'My Study': found 'My Study' at name"),
        (lambda i: splits.by_patient(i, THREE, "../up"), "at name"),
        (lambda i: splits.by_time(i, {"a": 5, "b": 2}, "s"), r"ending at \[5.0, 2.0\]"),
        (lambda i: splits.by_time(i, {"a": None, "b": 2}, "s"), "each later"),
        (lambda i: splits.by_time(i, {"a": float("nan")}, "s"), "finite"),
        (lambda i: splits.by_time(i, {"a": 5}, "s", column="age"), "expected `days` or a label"),
        (lambda i: splits.nested(i, "s", [10, 5]), "ascending"),
        (lambda i: splits.nested(i, "s", [0, 5]), "ascending"),
        (lambda i: splits.nested(i, "s", []), "expected 1 to 127"),
        (lambda i: splits.leave_cohort_out(i, "a", "s", {"test": 1}), "each of its own name"),
        (lambda i: splits.make_split(i, "s", {"kind": "coin"}), "at rule"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make(make_index(20))


@settings(max_examples=60, deadline=None)
@given(st.lists(IDS, max_size=30), st.integers(0, 3))
def test_ids_are_numbered_in_their_order(ids, repeat):
    array = np.frombuffer(b"".join(ids * repeat), np.uint8).reshape(-1, 16)
    distinct = sorted(set(ids))
    assert number_ids(array).tolist() == [distinct.index(one) for one in ids * repeat]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=12))
def test_people_are_the_components_of_the_map(count, links):
    """Against a union-find written out."""
    names = [bytes([7 * n % 251]) * 16 for n in range(15)]
    leader = list(range(15))
    for one, other in links:
        a, b = leader[one], leader[other]
        leader = [a if found == b else found for found in leader]
    ids = np.frombuffer(b"".join(names[:count]), np.uint8).reshape(-1, 16)
    person, first = IdentityMap.of([(names[one], names[other]) for one, other in links]).join(ids)
    met = {*range(count), *(place for link in links for place in link)}
    for place in range(count):
        for other in range(count):
            assert (person[place] == person[other]) == (leader[place] == leader[other])
        mine = [names[n] for n in met if leader[n] == leader[place]]
        assert first[person[place]].tobytes() == min(mine)
