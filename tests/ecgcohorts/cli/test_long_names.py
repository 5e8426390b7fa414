"""Tables of the command line at 80 columns: a long name takes no room from the numbers beside it."""

import io

import pytest
from rich.console import Console

from ecgcohorts.cli.console import table
from ecgcohorts.store.upkeep.info import render, splits_table

LONG = "regional_hospital_of_the_north_resting_ecgs_2016_to_2024"
HEADINGS = ("inputs", "stored", "duplicates", "rejected", "patients")
COUNTS = {"inputs": 799_999, "stored": 123_456, "duplicates": 12_345, "rejected": 222, "patients": 98_765}
LICENCE = "UK Biobank material transfer agreement (assumed)"


def printed(renderable: object, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(renderable)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def info(*names: str) -> object:
    cohorts = [{"name": name, **COUNTS, "patients_with_two": 4_321, "licence": LICENCE} for name in names]
    store = {"codec": "lz4", "earlier_generations": []}
    facts = {
        "path": "s.zarr",
        "recordings": 1,
        "patients": 1,
        "recipe": "cape-v1",
        "unit": "mV",
        "bytes": 1,
        "look_scaled": 0,
        "overlaps": [],
    }
    return render(facts | {"fingerprint": "f" * 64, "stores": [store], "rejects": {}, "splits": [], "cohorts": cohorts})


@pytest.mark.parametrize("width", [80, 100, 1000])
@pytest.mark.parametrize("names", [(LONG,), (LONG, "ukb"), ("ukb", LONG), ("ptb_diagnostic", "chapman_ningbo")])
def test_info_shows_every_name_heading_and_number_whole(names, width):
    lines = printed(info(*names), width)
    headings = next(line.split() for line in lines if "inputs" in line)
    assert [word for word in headings if word in HEADINGS] == list(HEADINGS)
    assert not any("\u2026" in line for line in lines)
    for name in names:
        at = next(place for place, line in enumerate(lines) if line.split()[:1] == [name])
        numbers = [str(count) for count in (*COUNTS.values(), 4_321)]
        beneath = next(line for line in lines[at:] if numbers[0] in line)
        assert [word for word in beneath.split() if word.isdecimal()] == numbers


def test_info_keeps_a_line_for_each_cohort_where_there_is_room():
    for names, width in ((("ptb_diagnostic", "sph"), 80), ((LONG, "ukb"), 1000)):  # 1000: as in a pipe
        lines = printed(info(*names), width)
        for name in names:
            assert any(line.startswith(name) and "799999" in line and "4321" in line for line in lines)


def test_a_list_of_splits_loses_nothing_of_a_name():
    split = {"name": "leave_out", "words": "by cohort", "in_no_part": 0}
    parts = [{"name": LONG, "recordings": 123_456, "patients": 98_765}]
    cells = [line.split() for line in printed(splits_table([split | {"parts": parts}]))]
    assert LONG in "".join("".join(word for word in line if word in LONG) for line in cells[1:])
    assert {"123456", "98765"} <= {word for line in cells for word in line}


@pytest.mark.parametrize("name", ["random", LONG])
def test_numbers_beside_a_long_name_stay_whole(name):
    columns = ["", "age error elsewhere, years", "sex AUROC elsewhere", "kNN purity", "linear probe AUC"]
    lines = printed(table([[name, "11.767", "0.829", "0.339", "0.562"]], columns, right=range(1, 5)))
    words = [word for line in lines for word in line.split()]
    assert {"11.767", "0.829", "0.339", "0.562", "elsewhere,", "years", "purity", "linear"} <= set(words)
    assert name in "".join(word for word in words if word in name)
