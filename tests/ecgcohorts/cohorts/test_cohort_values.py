"""Ages, sexes, times and labels from text: unknown stays unknown."""

import math
from datetime import datetime

import pytest

from ecgcohorts.cohorts import values
from ecgcohorts.cohorts.schema import Label, Where

FIND = (Where(column="label"),)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("57", 57),
        ("57.0", 57),
        (" 63 ", 63),
        ("0", 0),
        ("89.9", 89.9),
        ("90", 90),
        ("94", 90),
        ("130", 90),
        ("300", 90),
        ("300.0", 90),
    ],
)
def test_an_age_is_read_and_capped_at_90(text: str, years: float) -> None:
    assert values.age_years(text, codes={"300": 90}) == years


@pytest.mark.parametrize("text", ["", "NaN", "nan", "-1", "131", "299", "inf", "57Y", "unknown", "1e400"])
def test_what_is_no_age_is_unknown(text: str) -> None:
    assert math.isnan(values.age_years(text, codes={"300": 90}))


def test_300_is_no_age_unless_the_cohort_says_so() -> None:
    assert math.isnan(values.age_years("300"))


def test_ages_come_in_other_units() -> None:
    assert values.age_years("18", "months") == 1.5
    assert values.age_years("36525", "days") == 90
    assert values.age_years("26.0893", "weeks") == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("text", ["F", "f", "Female", "FEMALE", " female "])
def test_female_in_any_spelling(text: str) -> None:
    assert values.sex(text) == "female"


@pytest.mark.parametrize("text", ["", "NaN", "Unknown", "0", "1", "2", "X", "malefemale"])
def test_sex_without_a_code_is_not_guessed(text: str) -> None:
    assert values.sex(text) is None


def test_codes_of_a_cohort_say_what_0_and_1_mean() -> None:
    codes: dict[str, values.Sex] = {"0": "male", "1": "female", "True": "male"}
    assert [values.sex(text, codes) for text in ("0", "1.0", "true", "2")] == ["male", "female", "male", None]


def test_times_are_iso_or_of_the_given_format_and_lose_their_zone() -> None:
    assert values.moment("1984-11-09 09:17:34") == datetime(1984, 11, 9, 9, 17, 34)
    assert values.moment("2020-01-02T03:04:05+02:00") == datetime(2020, 1, 2, 3, 4, 5)
    assert values.moment("02.01.2020 03:04", "%d.%m.%Y %H:%M") == datetime(2020, 1, 2, 3, 4)
    assert values.moment("02.01.2020") is None
    assert values.moment("") is None


@pytest.mark.parametrize(
    ("text", "present"),
    [
        ("{'AFIB': 0.0, 'SR': 100.0}", 1),
        ("{'NORM': 100.0}", 0),
        ("AFIB", 1),
        ("a, AFIB,,b;", 1),
        ("['AFIB']", 1),
        ("XAFIB,AFIBX", 0),
        ("SR;AFIB+346", 1),
        ("346+AFIB", 1),
        ("n/a", math.nan),
        ("", math.nan),
        ("NaN", math.nan),
        ("Unknown", math.nan),
        ("{'AFIB': 0.0", math.nan),
        ("{__import__('os').getcwd(): 1}", math.nan),
        ("[" * 5000, math.nan),
        ("{'AFIB': '" + "x" * 20_000 + "'}", math.nan),
    ],
)
def test_a_code_is_present_absent_or_unknown(text: str, present: float) -> None:
    assert Label(find=FIND, codes=("AFIB",)).number(text) == pytest.approx(present, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("True", 1),
        ("false", 0),
        ("Yes", 1),
        ("0", 0),
        ("2.5", 2.5),
        ("", math.nan),
        ("high", math.nan),
        ("inf", math.nan),
    ],
)
def test_a_label_without_codes_is_a_truth_or_a_number(text: str, number: float) -> None:
    assert Label(find=FIND).number(text) == pytest.approx(number, nan_ok=True)


def test_a_label_may_name_its_values() -> None:
    named = {"low": 0.0, "High": 1.0, "3": 0.5}
    found = [Label(find=FIND, values=named).number(text) for text in ("LOW", "high", "3.0", "other")]
    assert found == pytest.approx([0, 1, 0.5, math.nan], nan_ok=True)
