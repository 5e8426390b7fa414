"""Files at hand: what a recording needs stands beside it, a window at a time, and no more than two windows are on disk."""

from pathlib import Path

import pytest

from ecgcohorts.cli import program as cli
from ecgcohorts.errors import Reason, SourceError, SpecError, UnreadableRecording
from ecgcohorts.ingest.inspect import inspect
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.readers import files_beside
from ecgcohorts.sources import open_source
from ecgcohorts.sources.windows import WINDOW, at_hand, local

KINDS = ("zip", "tar", "bucket")
COUNT = 3 * WINDOW + 5


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Many files, each with a neighbour that `beside` below names."""
    folder = tmp_path / "raw"
    for number in range(COUNT):
        place = folder / f"d{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04}.hea").write_text(f"{number:04}.dat")
        (place / f"{number:04}.dat").write_text(f"samples {number}")
    return folder


def beside(path: Path, entries: object) -> list[str]:
    return path.read_text().split()


@pytest.mark.parametrize("kind", KINDS)
def test_each_has_its_neighbours_and_few_are_there_at_a_time(kind, raw, packed, temporary):
    seen, most = [], 0
    with open_source(packed(raw, kind)) as source:
        wanted = [(name, None) for name in source.names() if name.endswith(".hea")]
        for (name, _), file in zip(wanted, at_hand(source, wanted, beside), strict=True):
            assert file.read_text() == (raw / name).read_text()
            assert file.with_suffix(".dat").read_text() == (raw / name).with_suffix(".dat").read_text()
            seen.append(name)
            most = max(most, sum(1 for path in temporary.rglob("*") if path.suffix in (".hea", ".dat")))
        assert len(seen) == COUNT
        assert most <= 2 * 2 * WINDOW
        assert not list(temporary.rglob("*.hea"))
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_who_stops_early_leaves_nothing(kind, raw, packed, temporary):
    with open_source(packed(raw, kind)) as source:
        files = at_hand(source, ((name, None) for name in source.names()), lambda path, entries: ())
        next(files)
        files.close()
        assert not list(temporary.rglob("*.hea"))
    assert not list(temporary.iterdir())


def test_globs_bring_what_fits_below_the_folder(raw, packed):
    with open_source(packed(raw, "zip")) as source:
        [_, *_] = source.names()
        [file] = [
            list(path.parent.iterdir()) for path in at_hand(source, [("d1/0001.hea", None)], lambda *_: ["000?.dat"])
        ]
        assert sorted(path.name for path in file) == ["0001.dat", "0001.hea", "0004.dat", "0007.dat"]


def test_names_that_lead_elsewhere_bring_nothing(raw, packed, tmp_path):
    (tmp_path / "secret").write_text("secret")
    bad = ["../secret", "/etc/passwd", "..", ".", "", "d1/../../secret", str(tmp_path / "secret")]
    for kind in KINDS:
        with open_source(packed(raw, kind)) as source:
            for file in at_hand(source, [("d0/0000.hea", None), ("../secret", None)], lambda *_: bad):
                assert not any(path.read_text() == "secret" for path in file.parent.parent.rglob("*") if path.is_file())


def test_a_file_wanted_by_two_windows_is_fetched_once(raw, packed, monkeypatch):
    """A file of many recordings would otherwise come again for every window."""
    fetched = []
    real = Bucket.fetch
    monkeypatch.setattr(Bucket, "fetch", lambda self, name, *rest: (fetched.append(name), real(self, name, *rest))[1])
    with open_source(packed(raw, "bucket")) as source:
        wanted = [("d0/0000.hea", [str(number)]) for number in range(3 * WINDOW)]
        assert sum(file.is_file() for file in at_hand(source, wanted, beside)) == 3 * WINDOW
    assert sorted(fetched) == ["d0/0000.dat", "d0/0000.hea"]


def test_a_damaged_neighbour_is_the_fault_of_its_recording(raw, packed):
    path = Path(packed(raw, "stored.zip"))
    path.write_bytes(path.read_bytes().replace(b"0007.datsamples 7", b"0007.datsamples X"))
    with open_source(path) as source:
        wanted = [(f"d{number % 3}/{number:04}.hea", None) for number in range(9)]
        files = list(at_hand(source, wanted, beside))
        assert [isinstance(file, UnreadableRecording) for file in files] == [number == 7 for number in range(9)]
        assert files[7].reason is Reason.CHECKSUM
        with pytest.raises(SourceError, match="checksum"), local(source, ["d1/0007.dat"]):
            pass


def test_an_error_of_the_store_names_no_object(raw, packed, monkeypatch):
    url = packed(raw, "bucket")
    with open_source(url) as source:
        monkeypatch.setattr("obstore.get", lambda client, name: 1 / 0)
        with pytest.raises(Exception, match="the object store refuses or does not answer") as caught:
            list(at_hand(source, [("d0/0000.hea", None)], beside))
    assert "0000" not in str(caught.value)
    assert url in str(caught.value)


def test_a_folder_is_read_where_it_is(raw, temporary):
    files = at_hand(open_source(raw), [("d0/0000.hea", None)], files_beside("wfdb"))
    assert list(files) == [raw / "d0/0000.hea"]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "bucket"])
def test_inspect_says_the_same_of_every_source(kind, make_cohort, packed, temporary):
    folder = make_cohort(patients=3).folder
    (folder / "sub").mkdir()
    (folder / "sub" / "a.csv").write_text("a,b\n1,x\n")
    (folder / "CANARYREC000v0.atr").write_bytes(b"\x12\x04\0\0")
    here, there = inspect(folder).as_json(), inspect(packed(folder, kind)).as_json()
    assert {**here, "path": ""} == {**there, "path": ""}
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["zip", "bucket"])
def test_a_draft_of_any_source_can_be_ingested(kind, make_cohort, packed, tmp_path, temporary, capsys):
    source, out = packed(make_cohort(patients=3).folder, kind), tmp_path / "drafted.yaml"
    cli.main(["draft", source, "-o", str(out)])
    cli.main(["ingest", source, str(tmp_path / "s.zarr"), "--cohort", str(out)])
    assert "6 inputs = 6 stored" in capsys.readouterr().out
    assert not list(temporary.iterdir())


def test_what_is_no_source_is_said_in_one_line(tmp_path):
    with pytest.raises(SourceError, match="found no such folder or file"):
        open_source(tmp_path / "nothing.zip")
    with pytest.raises(SpecError, match="no URL of an object store"):
        open_source("s3://")
    (tmp_path / "x").write_text("text")
    with pytest.raises(SourceError, match="no archive"):
        open_source(tmp_path / "x")
