"""Identity stays in the input: every reader's fixture is full of planted texts, and none of them may come out.

Searched are all bytes of the store, its tables cell by cell, the report, the plot, and whatever is printed, logged or
raised: for the planted texts, and for the names of files and folders, which often are those of patients.
"""

import io
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import victims

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.readers import open_reader
from ecgcohorts.recording import Recording

FOLDER, STEM, BROKEN = "KANARIENVOGELORDNER", "KANARIENVOGELDATEI", "KANARIENVOGELBRUCH"
NAMES = (FOLDER, STEM, BROKEN)
COHORT = """\
name: somewhere
title: Planted texts
licence: CC0-1.0
citation: made for a test
mains_hz: 50
layouts:
  - reader: {reader}
    files: {{include: ["**/*{suffix}"]}}
    patient: [{{reader: true}}, {{header: Patient ID}}]
    age: [{{reader: true}}, {{header: Age}}]
    sex: [{{reader: true}}, {{header: sex}}]
"""
# Fixtures whose patient is older than the greatest age that is stored.
OLDEST = {"wfdb", "muse_xml"}


class Planted:
    """A folder of one reader's recordings, a broken one among them, and what must not leave it."""

    def __init__(self, reader: str, place: Path) -> None:
        self.place, self.raw, self.store = place, place / "raw", place / "store.zarr"
        folder = self.raw / FOLDER
        folder.mkdir(parents=True)
        writer = victims.writer_of(reader)
        path, expected = writer.write(folder, seconds=8.0)
        self.input = b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())
        self.entries = len(expected)
        self.path = path.rename(path.with_stem(STEM))
        self.recordings: list[Recording] = list(open_reader(reader).read(self.path))
        self.path.with_stem(BROKEN).write_bytes(self.path.read_bytes()[: path.with_stem(STEM).stat().st_size // 2])
        self.spec = place / "cohort.yaml"
        self.spec.write_text(COHORT.format(reader=reader, suffix=path.suffix))
        dates = {str(one.acquired_at.date()) for one in self.recordings if one.acquired_at is not None}
        self.texts = (*writer.CANARIES, *dates)


@pytest.fixture(params=[name for name in victims.NAMES if victims.has_writer(name)], scope="module")
def reader(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def planted(reader: str, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(reader, tmp_path_factory.mktemp(reader))


def spellings(text: str) -> Iterator[bytes]:
    lower = text.lower()
    yield from {lower.encode(codec, "ignore") for codec in ("utf-8", "latin-1", "utf-16-le", "utf-16-be")}
    if text.isdigit():
        yield int(text).to_bytes(8, "little")


def found_in(data: bytes, texts: tuple[str, ...]) -> list[str]:
    lower = data.lower()
    return [text for text in texts if any(spelling in lower for spelling in spellings(text) if len(spelling) > 4)]


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of all files; tables and arrays once more without their compression."""
    for file in sorted(folder.rglob("*")):
        yield f"the name of {file.name}", file.relative_to(folder).as_posix().encode()
        if not file.is_file():
            continue
        yield file.name, file.read_bytes()
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
            yield f"{file.name}, unpacked", table.to_csv().encode()
            schema = io.StringIO()
            table.info(buf=schema)
            yield f"{file.name}, schema", schema.getvalue().encode()
    if (folder / "CURRENT").is_file():
        index = ec.open(folder).index
        yield "the index", index.to_pandas().to_csv().encode()
        for name in index.columns:
            yield f"index column {name}", np.ascontiguousarray(index[name]).tobytes()


def run(*arguments: object) -> None:
    """The command line, in this process."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        print("exit code", end.code)


def test_texts_are_planted(planted: Planted) -> None:
    """A search finds nothing where nothing was hidden."""
    assert found_in(planted.input, planted.texts)
    assert planted.entries == len(planted.recordings)


def test_nothing_planted_comes_out(
    reader: str,
    planted: Planted,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(planted.place)
    out = planted.place / "out"
    out.mkdir()
    texts = planted.texts + NAMES
    run("ingest", "raw", "store.zarr", "--cohort", "cohort.yaml", "--max-reject-frac", "1")
    store = ec.open(planted.store)
    assert store.manifest.segments[0].accounting.stored == planted.entries
    assert len(store.rejects()) >= 1
    assert not (store.index["age"] > 90).any()
    assert reader not in OLDEST or (store.index["age"] == 90).all()
    run("info", "store.zarr")
    run("info", "store.zarr", "--json")
    run("table1", "store.zarr")
    run("verify", "store.zarr")
    run("report", "store.zarr", "-o", out / "report.html")
    run("plot", "store.zarr", "0", "-o", out / "plot.svg")
    run("ingest", "raw", "other.zarr", "--cohort", "cohort.yaml", "--on-error", "raise")
    for folder in (planted.store, out, planted.place / "other.zarr"):
        for what, data in everything_in(folder):
            assert not found_in(data, texts), f"{what}: {found_in(data, texts)}"
    printed = capfd.readouterr()
    said = "\n".join([printed.out, printed.err, caplog.text])
    assert "exit code" in said  # of --on-error raise
    assert not found_in(said.encode(), texts), said


def test_an_inspection_says_no_header_text(
    planted: Planted, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may name a file that is damaged: it is for the person at the screen, who has to find that file."""
    monkeypatch.chdir(planted.place)
    run("inspect", "raw")
    printed = capfd.readouterr()
    assert "recordings" in printed.out
    assert not found_in((printed.out + printed.err).encode(), planted.texts), printed


def raised(planted: Planted, workers: int) -> None:
    """Ingest until the first refusal, and look at all that Python would show or send of it."""
    options = IngestOptions(on_error="raise", workers=workers)
    with pytest.raises(ec.EcgError) as caught:
        ingest(planted.raw, planted.place / f"raised{workers}.zarr", str(planted.spec), options)
    shown = "".join(traceback.format_exception(caught.value))
    texts = planted.texts + NAMES
    assert not found_in(shown.encode(), texts), shown
    assert not found_in(pickle.dumps(caught.value), texts)


def test_a_traceback_says_nothing(planted: Planted) -> None:
    raised(planted, workers=1)


def test_a_traceback_from_another_process_says_nothing(tmp_path: Path) -> None:
    """Damaged behind its header, so that the refusal comes from a worker."""
    planted = Planted("wfdb", tmp_path)
    broken = planted.path.with_stem(BROKEN)
    broken.write_text(planted.path.read_text().replace("r.dat", f"{BROKEN}.dat"))
    broken.with_suffix(".dat").write_bytes(b"short")
    raised(planted, workers=2)


def test_a_recording_shown_says_nothing(planted: Planted) -> None:
    """At a prompt, in a log or in the locals of a traceback."""
    for recording in planted.recordings:
        assert not found_in(repr(recording).encode(), planted.texts + NAMES), repr(recording)
