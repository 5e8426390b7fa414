"""Files and tables of a cohort by the million: in order, found by key, and without taking the memory of objects."""

import os
import random
import tracemalloc
from pathlib import Path, PurePosixPath

import pytest

from ecgcohorts.cohorts.files import Found, SourceItem, without_suffix
from ecgcohorts.cohorts.schema import Files, Layout, Table
from ecgcohorts.cohorts.tables import load_table
from ecgcohorts.errors import SourceError
from ecgcohorts.io.globs import fits
from ecgcohorts.io.texts import Texts, encoded
from ecgcohorts.sources import open_source


@pytest.mark.parametrize("seed", range(3))
def test_a_folder_gives_what_os_walk_finds_sorted_as_whole_paths(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    for _ in range(300):
        parts = ["".join(rng.choices("ab-._0Ü/", k=rng.randrange(1, 7))).strip("/") or "x" for _ in range(3)]
        path = tmp_path.joinpath(*parts)
        if all(not folder.is_file() for folder in path.parents) and ".." not in path.parts and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    found = []
    for base, folders, files in os.walk(tmp_path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [(Path(base) / name).relative_to(tmp_path).as_posix() for name in files if not name.startswith(".")]
    assert list(open_source(tmp_path).names()) == sorted(found)
    wanted = Files(include=("**/*-*", "a*"), exclude=("**/*0*",)).pattern()
    kept = [name for name in sorted(found) if fits(name, ["**/*-*", "a*"]) and not fits(name, ["**/*0*"])]
    assert list(open_source(tmp_path).names(wanted)) == kept


@pytest.mark.parametrize("name", ["1.hea", ".hea", "1", "1.", "a.b.c", "x.y/1", "x.y/.z", "x/1.dat.gz", "x/..a", "é.é"])
def test_a_path_loses_its_suffix_as_in_pathlib(name: str) -> None:
    assert without_suffix(name) == str(PurePosixPath(name).with_suffix(""))
    assert SourceItem(name, "7").stem == f"{PurePosixPath(name).with_suffix('')}#7"


def test_a_walk_holds_one_folder_at_a_time(tmp_path: Path) -> None:
    for folder in range(40):
        (tmp_path / f"{folder}").mkdir()
        for number in range(50):
            (tmp_path / f"{folder}" / f"a_rather_long_name_of_a_recording_{number:05}.hea").touch()
    assert sum(1 for _ in open_source(tmp_path).names()) == 2000
    tracemalloc.start()
    assert sum(1 for _ in open_source(tmp_path).names()) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000  # the names themselves take 200,000


def test_a_search_that_ends_in_nothing_says_where_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "release-1.0" / "a").mkdir(parents=True)
    for name in ("a/1.txt", "b.txt"):
        (tmp_path / "release-1.0" / name).touch()
    layout = Layout(reader="wfdb", files=Files(include=("a/*.hea",)))
    with pytest.raises(SourceError, match=r"found 2 files \(all below release-1.0\), but none like a/\*.hea"):
        Found.among([layout], open_source(tmp_path))


def test_a_table_of_many_rows_takes_little_room(tmp_path: Path) -> None:
    count = 20_000
    rows = "".join(f"{10_000_000 + n // 4},{40_000_000 + n},2150-01-01 10:{n % 60:02}:00\n" for n in range(count))
    (tmp_path / "t.csv").write_text("subject,study,time\n" + rows)
    table = Table(file="t.csv", key="study")
    load_table(table, ["subject", "time"], tmp_path, "here")  # pyarrow keeps something of its first call
    tracemalloc.start()
    loaded = load_table(table, ["subject", "time"], tmp_path, "here")
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept / count < 70  # bytes a row; as tuples in a dict it took 150, even with most texts shared
    for number in (0, 1, 777, count - 1):
        row = loaded.row(SourceItem(f"x/{40_000_000 + number}.hea"))
        assert row == (str(10_000_000 + number // 4), f"2150-01-01 10:{number % 60:02}:00")
    assert loaded.row(SourceItem("x/39999999.hea")) is None
    assert loaded.row(SourceItem("x/zzz.hea")) is None


@pytest.mark.parametrize("seed", range(5))
def test_sorted_texts_are_found_and_no_others(seed: int) -> None:
    rng = random.Random(seed)
    texts = sorted({"".join(rng.choices("ab/0.", k=rng.randrange(5))) for _ in range(60)} | {"é", "\udcff"})
    shuffled, gathered = rng.sample(texts, len(texts)), Texts()
    for text in shuffled:
        gathered.append(text)
    found, order = gathered.sort()
    assert sorted(found, key=encoded) == list(found)
    assert [shuffled[place] for place in order] == list(found)
    for text in texts:
        assert found[found.find(text)] == text
        assert found.find(text + "x") is None
    below = [found[place] for place in found.below("a/")]
    assert below == [text for text in found if text.startswith("a/")]
    assert found.first_twice() is None
