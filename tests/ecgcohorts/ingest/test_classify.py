"""Every file of a folder gets one class, told by content and neighbours."""

import bz2
import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import victims

from ecgcohorts import plugins, readers
from ecgcohorts.errors import SourceError
from ecgcohorts.ingest.classify import Census
from ecgcohorts.ingest.content import TEXT, FileClass, Kind, Numbers
from ecgcohorts.sources import open_source

ROWS = "".join(f"{n},{n % 7 - 3},{n % 5}\n" for n in range(40))
HEADER = "{name} 1 500 4\n{name}.dat 16 1000/mV 16 0 1 10 0 I\n"


def classes(root: Path) -> dict[str, tuple[Kind, str]]:
    census = Census.take(open_source(root))
    assert census.n_files == sum(1 for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return {name: (each.kind, each.what) for each, names in census.files.items() for name in names}


def wfdb(folder: Path, name: str) -> None:
    (folder / f"{name}.hea").write_text(HEADER.format(name=name))
    (folder / f"{name}.dat").write_bytes(np.array([1, 2, 3, 4], "<i2").tobytes())


def test_neighbours_say_what_is_part_of_a_wfdb_record(tmp_path: Path) -> None:
    wfdb(tmp_path, "100")
    (tmp_path / "100.atr").write_bytes(b"\x12\x04\0\0")
    (tmp_path / "100.odd").write_bytes(b"\x12\x04\0\1")  # no word of zeros at its end
    (tmp_path / "200.atr").write_bytes(b"\x12\x04\0\0")  # of no record
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "100.dat").write_bytes(b"\1\2\3\4")  # named by a header, but of another folder
    assert classes(tmp_path) == {
        "100.hea": (Kind.RECORDING, "wfdb"),
        "100.dat": (Kind.PART, "WFDB signals"),
        "100.atr": (Kind.PART, "WFDB annotations"),
        "100.odd": (Kind.UNKNOWN, "binary of no known format"),
        "200.atr": (Kind.UNKNOWN, "binary of no known format"),
        "other/100.dat": (Kind.UNKNOWN, "binary of no known format"),
    }


def test_a_signal_file_of_any_name_is_part_of_its_record(tmp_path: Path) -> None:
    (tmp_path / "1.header").write_text(
        "1 2 500 4\nnotes.txt 16 1000/mV 16 0 1 10 0 I\nx.mat 16 1000/mV 16 0 1 10 0 II\n"
    )
    (tmp_path / "notes.txt").write_bytes(b"text")
    scipy.io.savemat(tmp_path / "x.mat", {"val": np.ones((2, 4), np.int16)}, format="4")
    assert classes(tmp_path) == {
        "1.header": (Kind.RECORDING, "wfdb"),
        "notes.txt": (Kind.PART, "WFDB signals"),
        "x.mat": (Kind.PART, "WFDB signals"),
    }


def test_segments_belong_to_their_master_header(tmp_path: Path) -> None:
    (tmp_path / "s.hea").write_text("s/2 1 500 8\ns_1 4\ns_2 4\n")
    wfdb(tmp_path, "s_1")
    wfdb(tmp_path, "s_2")
    assert classes(tmp_path) == {
        "s.hea": (Kind.RECORDING, "wfdb"),
        **{f"s_{n}.hea": (Kind.PART, "WFDB header of a segment") for n in (1, 2)},
        **{f"s_{n}.dat": (Kind.PART, "WFDB signals") for n in (1, 2)},
    }


@pytest.mark.parametrize("name", plugins.names(readers.KIND))
def test_every_reader_finds_its_own_files(name: str, tmp_path: Path) -> None:
    path, _ = victims.writer_of(name).write(tmp_path)
    renamed = path.rename(path.with_name("renamed.bin"))
    found = classes(tmp_path)
    assert found.pop(renamed.name) == (Kind.RECORDING, name)
    assert {kind for kind, _ in found.values()} <= {Kind.PART}


def saved(save: Callable[..., object], *arguments: object, **options: object) -> bytes:
    stream = io.BytesIO()
    save(stream, *arguments, **options)
    return stream.getvalue()


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, "x")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a/b.hea"))
    return stream.getvalue()


ARRAY, TABLE, DOCUMENT, ARCHIVE, UNKNOWN = Kind.ARRAY, Kind.TABLE, Kind.DOCUMENT, Kind.ARCHIVE, Kind.UNKNOWN
CONTENTS = [
    (saved(np.save, np.ones((3, 4))), ARRAY, "NumPy"),
    (saved(np.savez, a=np.ones(3)), ARRAY, "NumPy archive"),
    (saved(scipy.io.savemat, {"val": np.ones((12, 50))}), ARRAY, "MATLAB 5"),
    (saved(scipy.io.savemat, {"val": np.ones((12, 50))}, format="4"), ARRAY, "MATLAB 4"),
    (ROWS.encode(), ARRAY, "numbers as text"),
    (gzip.compress(ROWS.encode()), ARRAY, "numbers as text, gzipped"),
    (("I,II,III\n" + ROWS).encode(), ARRAY, "numbers as text"),
    (b"Rhythm: 40 X 3\n\n" + ROWS.replace(",", " ").encode(), ARRAY, "numbers as text"),
    (("\ufeff" + ROWS.replace(",", ";")).encode("utf-8"), ARRAY, "numbers as text"),
    (ROWS.encode("utf-16"), ARRAY, "numbers as text"),
    (("0\t" * 11 + "0\n").encode() * 9, ARRAY, "numbers as text"),  # looks like a WFDB header, too
    (b"1.5," * 3000, ARRAY, "numbers as text"),  # one lead a row: the row does not end in the first bytes
    (("age,sex,n\n" + ROWS).encode(), TABLE, "CSV"),
    (b"id;name\n1;a, b\n2;c\n", TABLE, "CSV"),
    (b"id\tage\nx\t1\n", TABLE, "tab-separated"),
    (b"id,age,,,\n1,50,,,\n2,60,,,\n", TABLE, "CSV"),  # empty columns, as spreadsheets export them
    (b"id;;age;;sex\n1;;50;;M\n2;;60;;F\n", TABLE, "CSV"),
    (b",id,age,,\n0,x,50,,\n1,y,60,,\n", TABLE, "CSV"),  # row numbers, too
    (b"id,,,,\n1,2,3,,\n4,5,6,,\n", DOCUMENT, "text"),  # one name for three columns
    (b"1,2,,\n3,4,,\n", DOCUMENT, "text"),  # no names at all
    (b",0,1\n0,x,y\n1,z,u\n", TABLE, "CSV"),  # numbered by pandas
    (b",,,\nDear all,,,\nbye,,,\n", DOCUMENT, "text"),
    (gzip.compress(b"id,age\nx,1\n"), TABLE, "CSV, gzipped"),
    (b'id,report\n1,"two\nlines, and a comma"\n', TABLE, "CSV"),
    (",".join(f"column_{n}" for n in range(900)).encode(), TABLE, "CSV"),  # a header longer than the first bytes
    (b"PAR1" + b"\0" * 40, TABLE, "Parquet"),
    (b"# Read me\n\nSome text, with commas.\nMore.\n", DOCUMENT, "text"),
    ("Größe in Å".encode("latin-1") * 3, UNKNOWN, "binary of no known format"),  # a third of it is no ASCII
    ("Eine längere Erklärung in Latin-1, wie es sie gibt".encode("latin-1"), DOCUMENT, "text"),
    (b"1002603\n1002867\n" + b"".join(b"%d\n" % n for n in range(50)), DOCUMENT, "text"),  # names of records
    (b'{"a": [1, 2]}', DOCUMENT, "JSON"),
    (b"<html><body>", DOCUMENT, "web page"),
    (b'<!DOCTYPE html>\n<html lang="en">', DOCUMENT, "web page"),
    (b"%PDF-1.7\n", DOCUMENT, "PDF"),
    (b"\x89PNG\r\n\x1a\n\0", DOCUMENT, "picture"),
    (zipped("[Content_Types].xml"), DOCUMENT, "office document"),
    (zipped("records/1.hea"), ARCHIVE, "zip"),
    (tarred(), ARCHIVE, "tar"),
    (gzip.compress(tarred()), ARCHIVE, "gzip"),
    (gzip.compress(gzip.compress(ROWS.encode())), ARCHIVE, "gzip"),
    (gzip.compress(b"<RestingECG>\n</RestingECG>"), ARCHIVE, "gzipped muse_xml"),
    (bz2.compress(b"x"), ARCHIVE, "bzip2"),
    (b"", UNKNOWN, "empty file"),
    (b"\1\2\3", UNKNOWN, "binary of no known format"),
    (b"<?xml version='1.0'?>\n<invoice/>", UNKNOWN, "XML of no known format"),
]


@pytest.mark.parametrize(
    ("content", "kind", "what"), CONTENTS, ids=[f"{n}-{case[2]}" for n, case in enumerate(CONTENTS)]
)
def test_content_decides(content: bytes, kind: Kind, what: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(content)
    assert classes(tmp_path) == {"file.bin": (kind, what)}


def test_hdf5_is_opened_to_see_its_layout(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "strange.h5", "w") as file:
        file["signal"] = np.ones((12, 100))
    victims.writer_of("code_hdf5").write(tmp_path)
    found = classes(tmp_path)
    assert found.pop("strange.h5") == (Kind.ARRAY, "HDF5 of no known layout")
    assert [*found.values()] == [(Kind.RECORDING, "code_hdf5")]


def test_a_manifest_takes_its_arrays_in(tmp_path: Path) -> None:
    (tmp_path / "day1").mkdir()
    for name in ("a.npy", "day1/b.npy"):
        np.save(tmp_path / name, np.ones((50, 1)))
    np.save(tmp_path / "other.npy", np.ones(3))
    lines = ["ecg_arrays: 1", "kind: npy", "rate_hz: 500", "unit: mV", "leads: [I]", "axes: time_lead"]
    (tmp_path / "arrays.yaml").write_text("\n".join([*lines, "files: [a.npy, 'day1/*.npy']"]) + "\n")
    assert classes(tmp_path) == {
        "arrays.yaml": (Kind.RECORDING, "arrays"),
        "a.npy": (Kind.PART, "array of a manifest"),
        "day1/b.npy": (Kind.PART, "array of a manifest"),
        "other.npy": (Kind.ARRAY, "NumPy"),
    }


def test_what_is_no_plain_file_is_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    wfdb(tmp_path / "folder", "1")
    (tmp_path / "to_file.hea").symlink_to(tmp_path / "folder" / "1.hea")
    (tmp_path / "to_folder").symlink_to(tmp_path / "folder")
    (tmp_path / "to_nothing").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".hidden").mkdir()
    wfdb(tmp_path / ".hidden", "2")
    os.mkfifo(tmp_path / "pipe.dat")
    assert classes(tmp_path) == {
        "folder/1.hea": (Kind.RECORDING, "wfdb"),
        "folder/1.dat": (Kind.PART, "WFDB signals"),
        "to_file.hea": (Kind.LINK, "to a file"),
        "to_nothing": (Kind.LINK, "to a file"),
        "to_folder": (Kind.LINK, "to a folder"),
        ".hidden/2.hea": (Kind.HIDDEN, "file"),
        ".hidden/2.dat": (Kind.HIDDEN, "file"),
        "pipe.dat": (Kind.UNKNOWN, "a folder, pipe or device"),
    }


def test_the_owner_of_a_suffix_says_why_a_file_is_none_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "5.hea").write_text("5 12 500\nno signal line\n")
    (tmp_path / "5.xml").write_text("no XML at all")  # a suffix of several readers
    assert dict(Census.take(open_source(tmp_path)).files) == {
        FileClass(Kind.UNKNOWN, "named like wfdb", "bad_header"): ["5.hea"],
        FileClass(Kind.DOCUMENT, "text"): ["5.xml"],
    }


def test_a_single_file(tmp_path: Path) -> None:
    wfdb(tmp_path, "1")
    assert Census.take(open_source(tmp_path), "1.hea").files == {FileClass(Kind.RECORDING, "wfdb"): ["1.hea"]}


@pytest.mark.parametrize("make", ["nothing", "empty"])
def test_no_file_is_an_error_with_its_remedy(make: str, tmp_path: Path) -> None:
    if make == "empty":
        (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="Check the path"):
        Census.take(open_source(tmp_path / "folder"))


def test_progress_is_told(tmp_path: Path) -> None:
    for number in range(250):
        (tmp_path / f"{number}.txt").write_text("x")
    told: list[int] = []
    Census.take(open_source(tmp_path), tell=told.append)
    assert told == [100, 200]


def test_random_bytes_have_a_class_too() -> None:
    rng = np.random.default_rng(0)
    starts = [content[: rng.integers(1, 60)] for content, _, _ in CONTENTS if content]
    for start in starts * 20:
        head = start + rng.bytes(int(rng.integers(0, 300)))
        assert isinstance(FileClass.of_head(head, bool(rng.integers(2))), FileClass)
        assert FileClass.of_head(struct.pack("<5i", *rng.integers(0, 60, 5)) + head, True).kind in Kind


@pytest.mark.parametrize(
    ("text", "separator", "decimal", "skip_lines", "columns", "leads"),
    [
        (ROWS, ",", ".", 0, 3, ()),
        ("time,I,II\n" + ROWS, ",", ".", 1, 3, ("I", "II")),
        ("'Elapsed time','I','II'\n'seconds','mV','mV'\n" + ROWS, ",", ".", 2, 3, ()),
        (ROWS.replace(",", ";").replace("-3", "-3,5"), ";", ",", 0, 3, ()),
        (ROWS.replace(",", "\t").replace("-3", "-3,5"), "tab", ",", 0, 3, ()),
        ("1,5 2,5 3,5\n" * 20, "space", ",", 0, 3, ()),
        ("  1 2 NaN\n" * 20, "space", ".", 0, 3, ()),
        ("1,2,3,\n" * 20, ",", ".", 0, 3, ()),
    ],
)
def test_how_numbers_stand_in_a_text(
    text: str, separator: str, decimal: str, skip_lines: int, columns: int, leads: tuple[str, ...]
) -> None:
    numbers = Numbers.in_head(text.encode())
    assert numbers is not None
    assert (numbers.separator, numbers.decimal) == (separator, decimal)
    assert (numbers.skip_lines, numbers.columns, numbers.leads) == (skip_lines, columns, leads)


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "a, b\n" * 20, "1,2,3\n1,2\n" * 20, "x\n" * 30 + ROWS])
def test_what_are_no_rows_of_numbers(text: str) -> None:
    assert Numbers.in_head(text.encode()) is None


@pytest.mark.parametrize("text", ["", "one line, two\n", "prose, with\na comma, or, two\nof, it\n", "1,2\n3,4\n"])
def test_what_is_no_table(text: str) -> None:
    assert FileClass.of_head(text.encode(), whole=True) == TEXT


@pytest.mark.shared
def test_every_shared_file_has_one_class(shared: Path) -> None:
    census = Census.take(open_source(shared))
    assert census.n_files == sum(1 for path in shared.rglob("*") if not path.is_dir())
    names = {name: each for each, paths in census.files.items() for name in paths}
    assert len(names) == census.n_files
    headers = {name for name in names if name.endswith(".hea")}
    assert set(census.recordings["wfdb"]) == headers
    signals = {name for name, each in names.items() if each.what == "WFDB signals"}
    assert {name for name in names if Path(name).suffix in (".dat", ".mat", ".xyz")} - signals == {
        "code15/9190_low_sample_rate.dat"  # its header names another file, altered on purpose by its source
    }
    assert all(names[name].what == "WFDB annotations" for name in names if Path(name).suffix in (".atr", ".qrs"))
    assert names["oracles/code_test/model.npy"] == FileClass(Kind.ARRAY, "NumPy")
    assert names["cinc2011_seta/1002603.txt.gz"].kind is Kind.ARRAY
    assert all(each.kind is Kind.TABLE for name, each in names.items() if name.endswith((".csv", ".csv.gz")))
    for folder, reader in (("hl7_aecg", "hl7_aecg"), ("philips_sierra_xml", "philips_xml"), ("scp_ecg", "scp")):
        inside = {name for name in names if name.startswith(f"vendor/{folder}/") and not name.endswith(".txt")}
        assert {names[name] for name in inside} == {FileClass(Kind.RECORDING, reader)}
