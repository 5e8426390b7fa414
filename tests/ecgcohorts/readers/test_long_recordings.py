"""Recordings too long to be read whole: windows of them hold the right samples, and little is read for each."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ecgcohorts as ec
from ecgcohorts.cohorts.schema import Windows
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.cohorts.windows import _in_windows
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.ingest import ingest
from ecgcohorts.ingest.against import verify_against
from ecgcohorts.readers import open_reader
from ecgcohorts.readers._shared import limits
from ecgcohorts.readers.wfdb import header as wfdb_header

RATE, SECONDS = 100, 60
SAMPLES = np.random.default_rng(77).integers(-120, 120, (3, RATE * SECONDS))
DAY = 24 * 3600
KINDS = (
    "ishne",
    *(f"wfdb {number}" for number in (8, 16, 24, 80, 212, 310, 311)),
    "wfdb two files",
    "edf",
    "edf+d",
    "bdf",
)
Write = Callable[[str, Path], tuple[str, Path]]


@pytest.fixture
def write(writers: Callable[[str], ModuleType]) -> Write:
    """Write a minute of three leads; returns the reader and the path."""

    def made(kind: str, folder: Path) -> tuple[str, Path]:
        if kind == "ishne":
            path = folder / "long.ecg"
            path.write_bytes(writers("ishne").document(SAMPLES, ("I", "II", "V1"), rate=RATE))
            return kind, path
        files = writers("wfdb" if kind.startswith("wfdb") else "edf")
        if kind.startswith("wfdb"):
            number = int(kind.split()[1]) if kind.split()[1].isdigit() else 0
            # First differences of format 8 have eight bits.
            rows = np.cumsum(np.sign(SAMPLES), axis=1) if number == 8 else SAMPLES
            channels = [
                files.Channel(row, lead, fmt=number or 212, file=f"r{place // 2 if number == 0 else 0}.dat")
                for place, (row, lead) in enumerate(zip(rows, ("I", "II", "V1"), strict=True))
            ]
            return "wfdb", files.write_record(folder, channels, f"r 3 {RATE} {SAMPLES.shape[1]} 10:00:00 1/2/2003")
        signals = files.leads_of(SAMPLES, per_record=RATE)
        if kind == "edf+d":
            signals.append(files.Annotations([float(second) for second in range(SECONDS)]))
        path = folder / "long.edf"
        path.write_bytes(files.document(signals, "1", kind.upper() if "+" in kind else "", bdf=kind == "bdf"))
        return "edf", path

    return made


def lower_limits(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (limits, wfdb_header):
        monkeypatch.setattr(module, "MAX_SECONDS", seconds)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("windows", [{"every_s": 3.57}, {"starts_s": [0, 51.37, 7.77]}, {"every_s": 10}], ids=str)
def test_windows_of_a_recording_too_long_for_the_limits(
    kind: str, windows: dict[str, Any], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path = write(kind, tmp_path)
    reader, wanted = open_reader(name), Windows(length_s=8.1, **windows)
    (whole,) = reader.read(path)
    expected = list(_in_windows(reader, wanted).read(path))
    lower_limits(monkeypatch, 20)
    with pytest.raises(UnreadableRecording, match="windows"):
        list(reader.read(path))
    with pytest.raises(UnreadableRecording, match="windows"):
        list(reader.scan(path))
    found = _in_windows(reader, wanted)
    headers, parts = list(found.scan(path)), list(found.read(path))
    assert len(headers) == len(parts) == len(expected)
    for header, part, other in zip(headers, parts, expected, strict=True):
        assert header.source == part.source == other.source
        assert header.acquired_at == part.acquired_at == other.acquired_at
        start = round(float(part.source.entry[1:].split("+")[0]) * RATE)
        assert part.n_samples == header.n_samples == 810
        assert np.array_equal(part.digital, whole.digital[:, start : start + 810])
        assert np.array_equal(part.signal_mv, other.signal_mv, equal_nan=True)
        assert part.leads == whole.leads


def test_a_window_longer_than_the_limits_is_refused(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("ishne", "wfdb 16", "edf"):
        name, path = write(kind, tmp_path)
        lower_limits(monkeypatch, 20)
        reader = _in_windows(open_reader(name), Windows(length_s=25, every_s=25))
        with pytest.raises(UnreadableRecording) as caught:
            list(reader.read(path))
        assert caught.value.reason is Reason.LIMIT
        monkeypatch.undo()


def test_a_rare_record_is_read_whole_or_not_at_all(
    writers: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = writers("wfdb")
    channels = [files.Channel(row, lead, skew=2) for row, lead in zip(SAMPLES, ("I", "II", "V1"), strict=True)]
    path = files.write_record(tmp_path, channels, f"r 3 {RATE} {SAMPLES.shape[1]}")
    lower_limits(monkeypatch, 20)
    with pytest.raises(UnreadableRecording) as caught:
        list(_in_windows(open_reader("wfdb"), Windows(length_s=10, every_s=10)).scan(path))
    assert caught.value.reason is Reason.LIMIT
    monkeypatch.undo()
    with pytest.raises(UnreadableRecording, match="part of a rare record"):
        list(open_reader("wfdb").read(path, None, slice(0, 10)))  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", ["ishne", "wfdb 212", "edf", "edf+d"])
def test_damaged_files_are_refused_in_parts_too(
    kind: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits flipped in headers, and files cut anywhere: an answer or UnreadableRecording, nothing else."""
    name, path = write(kind, tmp_path)
    data, rng = path.read_bytes(), np.random.default_rng(5)
    lower_limits(monkeypatch, 20)
    reader = _in_windows(open_reader(name), Windows(length_s=8, every_s=8, at_most=3))
    refused = 0
    for trial in range(300):
        bent = bytearray(data)
        if trial % 3:
            bit = int(rng.integers(0, 8 * min(len(data), 1500)))
            bent[bit // 8] ^= 1 << bit % 8
        else:
            del bent[int(rng.integers(0, len(data))) :]
        path.write_bytes(bent)
        try:
            for part in reader.read(path):
                assert part.n_samples <= 2000
        except UnreadableRecording:
            refused += 1
    assert refused > 90


# --- a day of Holter


def beats(seconds: int, rate: int) -> NDArray[np.int64]:
    """(12, time) of 5 uV a step: I and II as they are, III their difference, V1 to V6 of falling size."""
    time = np.arange(seconds * rate) / rate
    wave = np.exp(-((((time % 0.83) - 0.4) / 0.02) ** 2)) + 0.2 * np.exp(-((((time % 0.83) - 0.65) / 0.05) ** 2))
    rng = np.random.default_rng(seconds)
    sizes = np.array([0.6, 1.1, 0.5, -0.85, 0.05, 0.8, 0.4, 0.9, 1.2, 1.1, 0.9, 0.7])
    rows = sizes[:, None] * wave * 200 + rng.normal(0, 1.5, (12, len(time)))
    rows[2] = rows[1] - rows[0]
    return np.rint(rows).astype(np.int64)


@pytest.fixture(scope="session")
def day(writers: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 h of 12 leads at 250 Hz as ISHNE, WFDB and EDF: 518 MB each, of which only ten seconds an hour take room."""
    folder, rate = tmp_path_factory.mktemp("day"), 250
    hour = beats(10, rate)
    leads = writers("ishne").TWELVE

    def write_sparse(path: Path, head: bytes, part: Callable[[int], tuple[int, bytes]], size: int) -> None:
        with path.open("wb") as file:
            file.write(head)
            for number in range(24):
                at, content = part(number)
                file.seek(len(head) + at)
                file.write(content)
            file.truncate(len(head) + size)

    def rows(number: int) -> NDArray[np.int64]:
        return hour + number  # another one each hour

    bytes_of_all = 24 * 3600 * rate * 12 * 2
    start = 24 * rate  # bytes of a second of 12 leads of 16 bits
    (folder / "ishne").mkdir()
    head = writers("ishne").document(hour[:, :0], leads, rate=rate, declared=DAY * rate)
    write_sparse(
        folder / "ishne" / "day.ecg",
        head,
        lambda n: (3600 * n * start, rows(n).T.astype("<i2").tobytes()),
        bytes_of_all,
    )
    (folder / "wfdb").mkdir()
    lines = [f"day 12 {rate} {DAY * rate} 10:00:00 1/2/2003"]
    lines += [f"day.dat 16 200(0)/mV 16 0 {hour[place, 0]} 0 0 {lead}" for place, lead in enumerate(leads)]
    (folder / "wfdb" / "day.hea").write_text("\n".join(lines) + "\n")
    write_sparse(
        folder / "wfdb" / "day.dat", b"", lambda n: (3600 * n * start, rows(n).T.astype("<i2").tobytes()), bytes_of_all
    )
    (folder / "edf").mkdir()
    edf = writers("edf")
    one = edf.leads_of(hour[:, :rate], leads, per_record=rate, physical=("-163840", "163835"))
    head = edf.document(one, "1", n_records=str(DAY))[: 256 * 13]
    records = hour.reshape(12, 10, rate).transpose(1, 0, 2)
    write_sparse(
        folder / "edf" / "day.edf",
        head,
        lambda n: (3600 * n * start, (records + n).astype("<i2").tobytes()),
        bytes_of_all,
    )
    return folder


@pytest.mark.parametrize("name", ["ishne", "wfdb", "edf"])
def test_windows_of_a_day_are_ingested_for_a_few_megabytes(name: str, day: Path, tmp_path: Path) -> None:
    source = next(path for path in (day / name).iterdir() if path.suffix != ".dat")
    layout = {"reader": name, "files": {"include": [f"*{source.suffix}"]}, "windows": {"length_s": 10, "every_s": 3600}}
    base = {"name": "holter", "title": "Holter", "licence": "none", "citation": "none", "mains_hz": 50}
    spec = CohortSpec.model_validate(base | {"layouts": [layout | {"patient": {"path": "(day)"}}]})
    tracemalloc.start()
    windows = list(_in_windows(open_reader(name), Windows(length_s=10, starts_s=(23 * 3600,))).read(source))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(windows[0].digital, beats(10, 250) + 23)
    assert peak < 4 << 20  # of 518 MB
    report = ingest(day / name, tmp_path / "s.zarr", spec)
    assert (report.total.inputs, report.total.stored, report.total.rejected) == (24, 24, {})
    store = ec.open(tmp_path / "s.zarr")
    assert store.index.n_patients == 1
    assert np.allclose(np.sort(store.index["days"]) * 24, np.arange(24))
    assert verify_against(tmp_path / "s.zarr", day / name, spec).ok
    # Without windows, the way out stands in the refusal.
    with pytest.raises(UnreadableRecording, match="ingest `windows` of it"):
        ec.read(source)
