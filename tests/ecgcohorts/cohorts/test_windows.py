"""Windows of long recordings: which there are, what they are called, and that they hold the samples of their time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import ecgcohorts as ec
from ecgcohorts.cohorts.files import SourceItem
from ecgcohorts.cohorts.schema import Windows
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.cohorts.windows import _in_windows
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.ingest import ingest
from ecgcohorts.ingest.against import verify_against
from ecgcohorts.readers import open_reader

RATE = 250
LONG = 60  # seconds


def write_long(folder: Path, name: str, seconds: float = LONG, when: str = "10:00:00 01/02/2003") -> None:
    """One WFDB record of twelve leads whose every second is another sine, with beats that pass for an ECG."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE)) / RATE
    beat = 900 * np.exp(-(((time % 0.8) - 0.3) ** 2) / 0.0002) + 60 * np.sin(2 * np.pi * (1 + 0.01 * time) * time)
    rng = np.random.default_rng(sum(name.encode()) + round(seconds))
    samples = np.stack([beat * (0.5 + 0.05 * lead) for lead in range(12)], 1) + rng.normal(0, 4, (len(time), 12))
    samples[:, 2] = samples[:, 1] - samples[:, 0]  # III
    integers = np.rint(samples).astype("<i2")
    (folder / f"{name}.dat").write_bytes(integers.tobytes())
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    lines = [f"{name} 12 {RATE} {len(time)} {when}".strip()]
    lines += [
        f"{name}.dat 16 1000/mV 16 0 {integers[0, k]} {np.int16(integers[:, k].sum(dtype=np.int16))} 0 {lead}"
        for k, lead in enumerate(leads)
    ]
    (folder / f"{name}.hea").write_text("\n".join([*lines, "# patient 7"]) + "\n")


def spec_of(windows: dict[str, Any] | None, **more: Any) -> CohortSpec:
    layout = {
        "reader": "wfdb",
        "files": {"include": ["**/*.hea"]},
        "windows": windows,
        "patient": {"header": "patient"},
        "recording": {"path": r"([^/]+)\.hea$"},
    }
    base = {"name": "long", "title": "Long", "licence": "none", "citation": "none", "mains_hz": 50}
    return CohortSpec.model_validate(base | {"layouts": [layout | more]})


@pytest.mark.parametrize(
    ("windows", "starts"),
    [
        ({"length_s": 10, "every_s": 10}, [0, 10, 20, 30, 40, 50]),
        ({"length_s": 10, "every_s": 25}, [0, 25, 50]),
        ({"length_s": 10, "every_s": 5, "at_most": 2}, [0, 5]),
        ({"length_s": 10, "starts_s": [30, 2.5]}, [30, 2.5]),
        ({"length_s": 10, "starts_s": [0, 50, 50.5]}, [0, 50]),
        ({"length_s": 60, "every_s": 1}, [0]),
        ({"length_s": 90, "every_s": 10}, [0]),  # shorter than one window: whole
        ({"length_s": 10, "starts_s": [300, 200]}, [200]),  # no window fits: one to be refused
    ],
)
def test_the_windows_of_a_minute(tmp_path: Path, windows: dict[str, Any], starts: list[float]) -> None:
    write_long(tmp_path, "a")
    spec = spec_of(windows)
    found = spec.sources(tmp_path)
    assert [item.entry for item in found] == [f"@{start:g}+{windows['length_s']}s" for start in starts]
    tables = spec.load_tables(tmp_path)
    about = [spec.describe(tables, item) for item in found]
    assert [one.recording_id for one in about] == [f"a{item.entry}" for item in found]
    assert {one.patient_id for one in about} == {"7"}
    begins = [one.acquired_at for one in about]
    assert [(begin - begins[0]).total_seconds() + starts[0] for begin in begins if begin and begins[0]] == starts


def test_a_window_holds_the_samples_of_its_time(tmp_path: Path) -> None:
    write_long(tmp_path, "a")
    whole = ec.read(tmp_path / "a.hea")[0]
    reader = _in_windows(open_reader("wfdb"), Windows(length_s=10, every_s=7.3))
    headers = list(reader.scan(tmp_path / "a.hea"))
    windows = list(reader.read(tmp_path / "a.hea"))
    assert len(windows) == len(headers) == 7
    for number, (header, window) in enumerate(zip(headers, windows, strict=True)):
        first = round(number * 7.3 * RATE)
        assert window.n_samples == header.n_samples == 10 * RATE
        assert window.source == header.source
        assert window.acquired_at == header.acquired_at
        np.testing.assert_array_equal(window.signal_mv, whole.signal_mv[:, first : first + 10 * RATE])
    assert len({window.waveform_digest for window in windows}) == 7


def test_without_windows_the_reader_is_the_reader() -> None:
    reader = open_reader("wfdb")
    assert _in_windows(reader, None) is reader


def test_a_window_behind_the_end_is_refused_by_name(tmp_path: Path) -> None:
    write_long(tmp_path, "a", seconds=20)
    reader = _in_windows(open_reader("wfdb"), Windows(length_s=10, starts_s=(30,)))
    with pytest.raises(UnreadableRecording) as caught:
        list(reader.read(tmp_path / "a.hea", ["@30+10s"]))
    assert caught.value.reason is Reason.EMPTY
    with pytest.raises(UnreadableRecording, match="a name without window"):
        list(reader.read(tmp_path / "a.hea", [""]))


def test_too_many_windows_are_refused(tmp_path: Path) -> None:
    write_long(tmp_path, "a")
    reader = _in_windows(open_reader("wfdb"), Windows(length_s=1, every_s=0.0001))
    with pytest.raises(UnreadableRecording) as caught:
        list(reader.scan(tmp_path / "a.hea"))
    assert caught.value.reason is Reason.LIMIT


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"length_s": 10}, "starts_s or every_s"),
        ({"length_s": 10, "every_s": 5, "starts_s": [1]}, "starts_s or every_s"),
        ({"length_s": 10, "starts_s": [1, 1]}, "one start twice"),
        ({"length_s": 0, "every_s": 5}, "greater than 0"),
        ({"length_s": 10, "starts_s": [-1]}, "greater than or equal to 0"),
    ],
)
def test_windows_that_mean_nothing_are_refused(windows: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec_of(windows)


@pytest.mark.parametrize("entry", ["", "7", "a@b", "@10", "@10+5", "x@1+s", "@-1+5s"])
def test_an_entry_without_window(entry: str) -> None:
    assert Windows.named(entry) == ""


def test_names_of_windows_in_files_of_many_recordings() -> None:
    item = SourceItem("x/exams.h5", "902@60+10s")
    assert (item.whole, item.window) == ("902", "@60+10s")
    assert (item.location, item.stem) == ("x/exams.h5#902", "x/exams#902@60+10s")
    single = SourceItem("x/a.hea", "@60+10s")
    assert (single.whole, single.location, single.stem) == ("", "x/a.hea", "x/a@60+10s")


def test_windows_are_ingested_and_agree_with_their_source(tmp_path: Path, make_cohort: Callable[..., Any]) -> None:
    for name in ("a", "b"):
        write_long(tmp_path / "raw", name)
    write_long(tmp_path / "raw", "short", seconds=5)
    spec = spec_of({"length_s": 10, "every_s": 20})
    report = ingest(tmp_path / "raw", tmp_path / "s.zarr", spec)
    assert (report.total.inputs, report.total.stored, report.total.rejected) == (7, 6, {"too_short": 1})
    store = ec.open(tmp_path / "s.zarr")
    assert store.index.n_patients == 1
    days = np.sort(store.index["days"])
    assert np.allclose(np.diff(days) * 86400, [0, 20, 0, 20, 0], atol=0.5)
    assert verify_against(tmp_path / "s.zarr", tmp_path / "raw", spec).ok
    again = ingest(tmp_path / "raw", tmp_path / "s.zarr", spec)
    assert not again.written


def test_an_archive_gives_the_same_windows(tmp_path: Path) -> None:
    import tarfile

    write_long(tmp_path / "raw", "a")
    with tarfile.open(tmp_path / "raw.tar", "w") as archive:
        archive.add(tmp_path / "raw", "raw")
    spec = spec_of({"length_s": 10, "starts_s": [0, 40]})
    prints = set()
    for number, source in enumerate(("raw", "raw.tar")):
        ingest(tmp_path / source, tmp_path / f"{number}.zarr", spec)
        store = ec.open(tmp_path / f"{number}.zarr")
        prints.add(store.index["waveform_digest"].tobytes())
        assert len(store.index) == 2
    assert len(prints) == 1
