"""A look at a folder: what is counted, that it is spread over the folder, and that nothing is written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import victims

import ecgcohorts.ingest
from ecgcohorts.ingest.content import Kind
from ecgcohorts.ingest.inspect import _Unreadable, inspect

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def write(folder: Path, name: str, rate: int = 500, n: int = 5000, gain: int = 1000, comments: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    samples = (np.arange(n)[:, None] % 97 + np.arange(12)).astype("<i2")
    (folder / f"{name}.dat").write_bytes(samples.tobytes())
    checksums = samples.sum(axis=0, dtype=np.int16)
    lines = [
        f"{name}.dat 16 {gain}/mV 16 0 {first} {checksum} 0 {lead}"
        for lead, first, checksum in zip(LEADS, samples[0], checksums, strict=True)
    ]
    (folder / f"{name}.hea").write_text("\n".join([f"{name} 12 {rate} {n}", *lines, comments]) + "\n")


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def printed(found: object) -> str:
    from rich.console import Console

    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(found.render())  # type: ignore[arg-type]
    return capture.get()


def test_a_mixed_folder_is_counted_and_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a", "1", comments="# Age: 63\n# Patient: CANARY")
    write(tmp_path / "a", "2", rate=400, n=2934)
    write(tmp_path / "b", "3", gain=200)
    write(tmp_path / "b", "4")
    (tmp_path / "b" / "4.dat").write_bytes(b"\0" * 24)  # truncated: only decoding shows it
    (tmp_path / "b" / "5.hea").write_text("5 12 500\nno signal line\n")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "LICENSE").write_text("x")
    before = snapshot(tmp_path)
    found = inspect(tmp_path)
    assert snapshot(tmp_path) == before
    assert found.census.n_files == 11
    assert (found.n_candidates, found.n_sampled, found.n_recordings) == (4, 4, 3)
    assert found.formats == {"wfdb": 3}
    assert found.rates_hz == {500: 2, 400: 1}
    assert found.leads == {" ".join(LEADS): 3}
    assert found.units == {"1000 steps per mV": 2, "200 steps per mV": 1}
    assert found.lengths_s == (2934 / 400, 10, 10)
    assert found.missing["patient id"] == found.missing["time"] == 3
    assert found.header_keys == {"Age": 1, "Patient": 1}
    assert found.unreadable == {_Unreadable("wfdb", "truncated"): ["b/4.hea"]}
    text = printed(found)
    for part in ("11 files", "3 recordings read, 1 unreadable", "400 Hz", "200 steps per mV", "7.335 s"):
        assert part in text
    for part in ("wfdb, truncated: b/4.hea", "named like wfdb: bad_header  b/5.hea"):
        assert part in text
    assert "CANARY" not in text


def test_a_sample_is_spread_over_the_whole_folder(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"p{number // 5}", f"{number:02d}", rate=100 * (1 + number // 5), n=1000)
    found = inspect(tmp_path, sample=4)
    assert (found.n_candidates, found.n_sampled, found.n_recordings) == (20, 4, 4)
    assert found.rates_hz == {100: 1, 200: 1, 300: 1, 400: 1}


def test_one_file_of_many_recordings_gives_a_sample(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "exams.hdf5", "w") as file:
        file["exam_id"] = np.arange(100, 130)
        file["tracings"] = np.ones((30, 4096, 12), np.float32)
    write(tmp_path, "1")
    found = inspect(tmp_path / "exams.hdf5", sample=7)
    assert found.formats == {"code_hdf5": 7}
    assert found.units == {"mV, floating point": 7}
    both = inspect(tmp_path, sample=8)
    assert both.formats == {"code_hdf5": 7, "wfdb": 1}


def test_many_lengths_are_told_as_a_range(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path, str(number), n=4000 + number)
    assert "8.000 to 8.016 s, median 8.008 s" in printed(inspect(tmp_path))


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    write(tmp_path, "1")
    (tmp_path / "1.hea").rename(tmp_path / "1.header")
    (tmp_path / "noise.hea").write_bytes(b"\1\2\3")
    found = inspect(tmp_path)
    assert found.formats == {"wfdb": 1}
    assert [(each.reason, names) for each, names in found.census.of(Kind.UNKNOWN)] == [("bad_header", ["noise.hea"])]


def test_a_rare_format_is_seen_among_many_files(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path, f"{number:02d}", n=1000)
    victims.writer_of("muse_xml").write(tmp_path)
    found = inspect(tmp_path, sample=5)
    assert found.formats == {"wfdb": 4, "muse_xml": 1}


def test_values_for_programs_are_those_shown(tmp_path: Path) -> None:
    write(tmp_path, "1")
    write(tmp_path, "2")
    (tmp_path / "2.dat").write_bytes(b"")
    (tmp_path / "table.csv").write_text("a,b\n1,x\n")
    found = inspect(tmp_path)
    values = json.loads(json.dumps(found.as_json()))
    assert values["files"] == 5 == sum(each["files"] for each in values["classes"])
    assert values["classes"][0] == {
        "class": "recording",
        "what": "wfdb",
        "reason": "",
        "files": 2,
        "examples": ["1.hea", "2.hea"],
    }
    assert (values["recording_files"], values["recording_files_looked_into"], values["recordings_read"]) == (2, 2, 1)
    assert values["rates_hz"] == {"500": 1}
    assert values["lengths_s"] == {"shortest": 10.0, "median": 10.0, "longest": 10.0}
    (refusal,) = values["unreadable"]
    assert (refusal["format"], refusal["reason"], refusal["files"]) == ("wfdb", "truncated", ["2.hea"])


def test_a_folder_without_recordings_is_shown_as_well(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Nothing but a note.")
    found = inspect(tmp_path)
    assert found.n_recordings == found.n_candidates == 0
    assert f"{tmp_path}: 1 file\n" in printed(found)
    assert "looked into" not in printed(found)
    assert found.as_json()["lengths_s"] == {}


@pytest.mark.parametrize("name", victims.NAMES)
def test_no_planted_identity_is_shown(name: str, tmp_path: Path) -> None:
    writer = victims.writer_of(name)
    writer.write(tmp_path)
    found = inspect(tmp_path)
    shown = printed(found) + json.dumps(found.as_json())
    names = " ".join(path.name for path in tmp_path.rglob("*"))  # which are shown: the user named the folder
    assert not [text for text in writer.CANARIES if text in shown and text not in names]


@pytest.mark.shared
def test_real_folders(shared: Path) -> None:
    code = inspect(shared / "code15", sample=31)
    assert (code.n_candidates, code.n_sampled, code.n_recordings) == (310, 31, 31)
    assert code.rates_hz == {400: 31}
    assert code.header_keys["Patient ID"] == 31
    georgia = inspect(shared / "cinc2021" / "G12EC", sample=74)
    assert georgia.n_recordings == 74
    assert not georgia.unreadable  # with `.mat` in 14 record names, and all their checksums hold
    assert georgia.units == {"1000 steps per mV": 71, "4880 steps per mV": 3}
    text = printed(inspect(shared / "mimic_iv_ecg"))
    assert "subject_id" in text
    assert "10012343" not in text.replace("p10012343", "")


@pytest.mark.shared
def test_refused_files_show_their_reason(shared: Path) -> None:
    found = inspect(shared / "vendor")
    assert found.n_sampled == found.n_candidates
    assert found.n_recordings + found.n_unreadable == found.n_candidates
    refused = {name: refusal for refusal, names in found.unreadable.items() for name in names}
    assert refused == {
        "hl7_aecg/empty.xml": _Unreadable("hl7_aecg", "empty_signal"),
        "philips_sierra_xml/invalid-doc-type.xml": _Unreadable("philips_xml", "unsupported_variant"),
        "philips_sierra_xml/invalid-doc-version.xml": _Unreadable("philips_xml", "unsupported_variant"),
    }
    assert all(name in printed(found) for name in refused)


def test_looking_at_a_folder_loads_nothing_of_ingest():
    """pandas, SciPy, Arrow and zarr take seconds to load, and a look at headers needs none of them."""
    script = (
        "import sys; from ecgcohorts.ingest import inspect\n"
        "print(*{'pandas', 'scipy', 'pyarrow', 'zarr', 'ecgcohorts.ingest.run'} & set(sys.modules))\n"
        "import ecgcohorts.ingest; print(ecgcohorts.ingest.IngestOptions.__module__, *dir(ecgcohorts.ingest))"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    loaded, public = run.stdout.splitlines()
    assert loaded.split() == []
    assert public.split()[:3] == ["ecgcohorts.ingest.run", "IngestOptions", "IngestReport"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ecgcohorts.ingest.nothing


@pytest.mark.parametrize(
    ("content", "root"),
    [
        (b"<?xml version='1.0'?>\n<invoice/>", "invoice"),
        (b"<x:com.example.cart.Export>1</x:com.example.cart.Export>", "com.example.cart.Export"),
        ("<?xml version='1.0' encoding='UTF-16'?><facture/>".encode("utf-16"), "facture"),
    ],
)
def test_unknown_xml_is_known_by_its_first_element(content: bytes, root: str, tmp_path: Path) -> None:
    (tmp_path / "file.xml").write_bytes(content)
    found = inspect(tmp_path)
    assert f"first element {root}" in printed(found)
    (each,) = found.as_json()["classes"]
    assert (each["what"], each["reason"], each["detail"]) == (
        *("XML of no known format", "unknown_format", f"first element {root}"),
    )


def test_what_was_found_is_told_and_other_causes_on_other_lines(tmp_path: Path) -> None:
    """One code stands for several causes: a reader of the report has to know which file has which."""
    for name in ("1", "2", "3"):
        write(tmp_path, name)
    for name, kept in (("1", 24), ("2", 48)):  # one cause: other numbers only
        (tmp_path / f"{name}.dat").write_bytes(b"\0" * kept)
    header = (tmp_path / "3.hea").read_text()
    (tmp_path / "3.hea").write_text(header.rstrip("\n"))
    found = inspect(tmp_path)
    rows = {tuple(each["files"]): each for each in found.as_json()["unreadable"]}
    assert set(rows) == {("1.hea", "2.hea"), ("3.hea",)}
    short = rows["1.hea", "2.hea"]
    assert (short["reason"], short["found"], short["expected"]) == ("truncated", "24 bytes of samples", "120000")
    text = printed(found)
    assert "truncated: 1.hea, 2.hea (found 24 bytes of samples, expected 120000)" in text
    assert "wfdb, truncated: 3.hea (found a header whose last line has no end, expected" in text


def test_a_cut_xml_file_shows_both_sides(tmp_path: Path) -> None:
    path, _ = victims.writer_of("muse_xml").write(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = inspect(tmp_path)
    assert "(found XML that ends early, expected well-formed XML without entities)" in printed(found)
    (cause,) = found.as_json()["unreadable"]
    assert (cause["found"], cause["reason"]) == ("XML that ends early", "truncated")


def test_files_named_like_a_format_say_why_they_are_not_of_it(tmp_path: Path) -> None:
    write(tmp_path, "1")
    (tmp_path / "a.edf").write_bytes(b"junk" * 100)
    (tmp_path / "b.hea").write_text("b 12 500\nno signal line\n")
    found = inspect(tmp_path)
    text = printed(found)
    assert "named like edf, unknown_format: a.edf (found another version, expected EDF or BDF)" in text
    assert "named like wfdb, bad_header: b.hea (found " in text
    assert {each["files"][0] for each in found.as_json()["unreadable"]} == {"a.edf", "b.hea"}
    assert not found.unreadable  # of the files that are recordings, none
