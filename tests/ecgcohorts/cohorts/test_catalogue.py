"""The catalogue: numbers as published, searches, and cohorts that hold the same recordings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ecgcohorts as ec
from ecgcohorts import plugins
from ecgcohorts.cli.program import main
from ecgcohorts.cohorts import catalogue
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.ingest import ingest
from ecgcohorts.store.upkeep.info import describe

PRESETS = plugins.names("ecgcohorts.cohorts.presets")
# Records, patients, patients with two or more: as the publications and their tables count them.
PUBLISHED = {
    "ptb_xl": (21_799, 18_869, 2_111),
    "ptb_diagnostic": (549, 290, 113),
    "code15": (345_779, 233_770, 66_929),
    "code_test": (827, 827, 0),
    "sami_trop": (1_631, 1_631, 0),
    "mimic_iv_ecg": (800_035, 161_352, 104_008),
    "mimic_iv_ecg_demo": (659, 92, None),
    "heedb_mgb": (10_471_531, 1_818_247, None),
    "heedb_emory": (1_452_964, 552_481, None),
    "sph": (25_770, 24_666, 1_066),
    "chapman_ningbo": (45_152, 45_152, 0),
    "chapman_figshare": (10_646, 10_646, 0),
    "cinc2021": (88_253, None, None),
    "incart_original": (75, 32, 30),
    "zzu_pecg": (14_190, 11_643, 1_691),
    "leipzig": (39, 39, 0),
    "ludb": (200, 200, 0),
    "norwegian_athletes": (28, 28, 0),
    "staff_iii": (520, 104, 104),
    "ecgrdvq": (5_232, 22, 22),
    "ecgdmmld": (4_211, 22, 22),
    "ecgcipa": (5_749, 60, 60),
    "brugada_huca": (363, 363, 0),
    "wctecgdb": (540, 92, 74),
    "ecg_id": (310, 90, 89),
    "ikem": (98_130, 30_290, 19_078),
    "echonext": (100_000, 36_286, None),
    "medalcare_xl": (16_842, 13, 13),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_states_the_published_numbers(name: str) -> None:
    about = CohortSpec.load(name).about
    assert (about.records, about.patients, about.repeated_patients) == PUBLISHED[name]
    assert about.access in ("open", "credentialed", "restricted")
    assert about.country


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_who_may_have_it(name: str) -> None:
    about = CohortSpec.load(name).about
    assert about.access is not None
    assert about.repeated_patients is None or about.patients is not None
    assert (about.repeated_patients or 0) <= (about.patients or 0) <= (about.records or 0) or about.patients is None


def test_overlaps_name_cohorts_that_exist() -> None:
    known = {name for preset in PRESETS for name in CohortSpec.load(preset).cohort_names}
    pairs = catalogue.shared_recordings()
    assert pairs
    for pair in pairs:
        assert {pair.one, pair.other} <= known, pair
        assert pair.one != pair.other


# One, other, and whether a digest sees the copies.
SHARED = [
    ("ptb_xl", "cinc2021_ptb_xl", True),
    ("chapman_ningbo_shaoxing", "chapman_shaoxing", True),
    ("chapman_ningbo_ningbo", "ningbo", True),
    ("ptb_diagnostic", "cinc2021_ptb", False),
    ("incart_original", "incart", False),
    ("chapman_figshare", "chapman_shaoxing", False),
    ("chapman_figshare", "chapman_ningbo_shaoxing", False),
    ("mimic_iv_ecg", "mimic_iv_ecg_demo", True),
]


@pytest.mark.parametrize(("one", "other", "found"), SHARED)
def test_two_cohorts_of_the_same_recordings_are_known(one: str, other: str, found: bool) -> None:
    (pair,) = catalogue.shared_recordings([one, other, "sph"])
    assert ({pair.one, pair.other}, pair.found) == ({one, other}, found)
    assert ("not recognised" in str(pair)) is not found
    assert catalogue.shared_recordings([one, "sph"]) == []


def test_no_other_pair_is_known() -> None:
    pairs = {frozenset((pair.one, pair.other)) for pair in catalogue.shared_recordings()}
    assert pairs == {frozenset((one, other)) for one, other, _ in SHARED}


@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        (["china", "child"], {}, {"zzu_pecg"}),
        (["CHILD"], {}, {"zzu_pecg"}),
        ([], {"access": "credentialed"}, {"heedb_mgb", "heedb_emory"}),
        ([], {"records": 500_000}, {"heedb_mgb", "heedb_emory", "mimic_iv_ecg"}),
        ([], {"repeated": 10_000}, {"code15", "mimic_iv_ecg", "ikem"}),
        (["brazil"], {}, {"code15", "sami_trop", "code_test"}),
        (["georgia"], {}, {"cinc2021"}),  # one of several cohorts in a collection
        (["chagas"], {}, {"code15", "sami_trop"}),  # a label
        (["incart"], {}, {"cinc2021", "incart_original"}),
        (["nobody", "china"], {}, set()),
    ],
)
def test_a_search(words: list[str], options: dict[str, Any], expected: set[str]) -> None:
    assert {one["cohort"] for one in catalogue.search(words, **options)} == expected


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a command that ends with `code`; return what it wrote on both channels."""

    def made(*arguments: object, code: int = 0) -> tuple[str, str]:
        found = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            found = int(end.code or 0)
        told = capsys.readouterr()
        assert found == code, told.err
        return told.out, told.err

    return made


def test_the_command_answers_in_json(call: Callable[..., tuple[str, str]]) -> None:
    everything = json.loads(call("cohorts", "--json")[0])
    assert [one["cohort"] for one in everything] == list(PRESETS)
    (one,) = json.loads(call("cohorts", "ptb_diagnostic", "--json")[0])
    assert one["shares_with"] == [
        {
            "cohort": "cinc2021_ptb",
            "of": "ptb_diagnostic",
            "what": "516 of 549 records, as other integers",
            "found": False,
        }
    ]
    (challenge,) = json.loads(call("cohorts", "cinc2021", "--json")[0])
    assert {(pair["of"], pair["cohort"]) for pair in challenge["shares_with"]} >= {
        ("cinc2021_ptb", "ptb_diagnostic"),
        ("ningbo", "chapman_ningbo_ningbo"),
    }
    assert json.loads(call("cohorts", "nobody", "--json", code=1)[0]) == []


def test_the_command_answers_in_words(call: Callable[..., tuple[str, str]]) -> None:
    said, _ = call("cohorts", "incart_original")
    assert "32, with two or more: 30" in said
    assert "incart_original with incart: 74 of 75 records" in said
    many, _ = call("cohorts", "brazil")
    assert "345,779" in many
    assert "ptb_xl" not in many
    assert "found no cohort that fits" in call("cohorts", "nobody", code=1)[1]
    assert "credentialed" in call("cohorts", "--access", "free", code=2)[1]


def test_the_words_of_access_are_those_of_the_schema() -> None:
    from typing import get_args

    from ecgcohorts.cli.commands import raw
    from ecgcohorts.cohorts.schema import About

    annotation = get_args(About.model_fields["access"].annotation)
    assert set(raw._ACCESS) == {word for one in annotation for word in get_args(one)}


def test_a_store_of_both_says_so(
    tmp_path: Path, make_cohort: Callable[..., Any], call: Callable[..., tuple[str, str]]
) -> None:
    raw = make_cohort(patients=2)

    content = CohortSpec.load(str(raw.spec)).model_dump(mode="json")
    for name in ("ptb_diagnostic", "sph"):
        ingest(raw.folder, tmp_path / "s.zarr", CohortSpec.model_validate(content | {"name": name}))
    assert describe(ec.open(tmp_path / "s.zarr"))["overlaps"] == []
    ingest(raw.folder, tmp_path / "s.zarr", CohortSpec.model_validate(content | {"name": "cinc2021_ptb"}))
    (line,) = describe(ec.open(tmp_path / "s.zarr"))["overlaps"]
    assert "ptb_diagnostic and cinc2021_ptb share recordings" in line
    assert "never train on one and test on the other" in line
    assert "516 of 549" in call("info", tmp_path / "s.zarr")[0]


def test_numbers_of_a_catalogue_are_no_part_of_a_description() -> None:
    spec = CohortSpec.load("ptb_xl")
    other = spec.model_copy(update={"about": spec.about.model_copy(update={"records": 1}), "overlaps": ()})
    assert other.sha256 == spec.sha256
    assert spec.model_copy(update={"title": "x"}).sha256 != spec.sha256


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("cinc2011", "886e8fe529c61af68754c6e84b8ff56760dbf18325c5a2d28fddf5ef333aa46a"),
        ("ecg_id", "763d669af1fd5cc092d15bd7965b0f858bb456760c482268274ff23e6c29c9ce"),
        ("muse_folder", "7fd4054f0d59c0aaa75be13d5ceac319ddee47aa9fd49695eb4d1380d0deaad6"),
    ],
)
def test_a_description_that_did_not_change_keeps_its_digest(name: str, digest: str) -> None:
    """Stores remember it: keys that came later must not make another description of it."""
    assert CohortSpec.load(name).sha256 == digest
