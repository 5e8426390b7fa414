"""A dry run says what a run would say: what headers refuse, what a sample refuses, and what a description misnames."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecgcohorts.errors import SpecError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io.buckets import Bucket

DRY = {"dry_run": True}


@pytest.fixture
def raw(make_cohort: Callable[..., Any]) -> Any:
    """Ten recordings in a large folder and two in a small one; of three the signals are cut, of one the header."""
    made = make_cohort(patients=6)
    stems = sorted(path.stem for path in made.folder.glob("*.hea"))
    small = made.folder / "small"
    small.mkdir()
    for stem in stems[:2]:
        for suffix in (".hea", ".dat"):
            shutil.move(made.folder / f"{stem}{suffix}", small / f"{stem}{suffix}")
    for path in (small / f"{stems[0]}.dat", *(made.folder / f"{stem}.dat" for stem in stems[2:4])):
        path.write_bytes(path.read_bytes()[:-40])
    (made.folder / f"{stems[4]}.hea").write_text("not a header\n")
    made.stems = stems
    return made


def test_a_sample_of_everything_is_what_a_run_refuses(raw: Any, tmp_path: Path) -> None:
    trial = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(**DRY, check=1000)).trial
    assert trial is not None
    assert not (tmp_path / "s.zarr").exists()
    assert (trial.sampled, trial.to_decode, trial.inputs, trial.folders) == (11, 11, 12, 2)
    [cut], [header] = trial.decoding_refuses, trial.headers_refuse
    assert (cut.reason, cut.count, cut.path) == ("truncated", 3, f"{raw.stems[2]}.hea")
    assert (header.reason, header.count, header.path) == ("bad_header", 1, f"{raw.stems[4]}.hea")
    assert cut.found
    assert cut.what_to_do
    run = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    assert run.total.rejected == {"bad_header": 1, "truncated": 3}
    assert trial.expected_fraction == pytest.approx(run.reject_fraction)
    assert run.trial is None


def test_a_sample_is_spread_over_folders_and_the_same_each_time(raw: Any, tmp_path: Path) -> None:
    def trial(n: int) -> Any:
        return ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(**DRY, check=n)).trial

    assert trial(2).folders == 2
    assert trial(4) == trial(4)
    # Half of the sample is the small folder, whose first recording is cut.
    assert trial(4).decoding_refuses[0].count >= 1
    assert (trial(1).sampled, trial(0).sampled, trial(0).decoding_refuses) == (1, 0, ())


def test_more_folders_than_recordings_to_decode(make_cohort: Callable[..., Any], tmp_path: Path) -> None:
    raw = make_cohort(patients=4)
    for path in sorted(raw.folder.glob("*.*")):
        (raw.folder / path.stem).mkdir(exist_ok=True)
        path.rename(raw.folder / path.stem / path.name)
    trial = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(**DRY, check=3)).trial
    assert trial is not None
    assert (trial.sampled, trial.folders) == (3, 3)


def test_the_same_from_an_archive(raw: Any, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "raw"), "zip", raw.folder))
    trial = ingest(archive, tmp_path / "s.zarr", str(raw.spec), IngestOptions(**DRY, check=1000)).trial
    assert trial is not None
    assert [(one.reason, one.count) for one in trial.decoding_refuses] == [("truncated", 3)]


def test_from_the_command_line(raw: Any, tmp_path: Path, outcome: Callable[..., Any]) -> None:
    dry = ("ingest", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec, "--dry-run")
    code, out, err = outcome(*dry)
    assert (code, err) == (0, "")
    assert "headers and ids refuse 1 of 12 new inputs:\n  1 bad_header\n" in out
    assert "Signals were not looked at; nothing written." in out
    assert not any(stem in out for stem in raw.stems)  # without --check, no name of a file is printed
    code, out, err = outcome(*dry, "--check", 11)
    assert code == 3
    assert "a run would refuse 33% of the new inputs, more than --max-reject-frac 0.1." in err
    assert "decoded 11 of 11 recordings (100.0%, from 2 folders): 3 would be refused:" in out
    assert f"3 truncated, such as {raw.stems[2]}.hea: found " in out
    code, out, _ = outcome(*dry, "--check", 11, "--json", "--max-reject-frac", 1)
    assert code == 0
    assert json.loads(out)["trial"]["decoding_refuses"][0]["count"] == 3
    code, _, err = outcome(*dry[:-1], "--check", 11)
    assert code == 2
    assert "found --check without --dry-run" in err
    assert not (tmp_path / "s.zarr").exists()


def test_a_dataset_that_no_input_has_ends_a_dry_run_like_a_run(tmp_path: Path, outcome: Callable[..., Any]) -> None:
    import h5py
    import numpy as np

    (tmp_path / "raw").mkdir()
    for number in range(2):
        with h5py.File(tmp_path / "raw" / f"{number}.h5", "w") as file:
            file["ecg"] = np.full((12, 2500), number, np.float32)
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    arrays = {"kind": "hdf5", "name": "ecgg", "rate_hz": 250, "unit": "mV", "axes": "lead_time", "leads": leads}
    layout = {"reader": "arrays", "files": {"include": ["*.h5"]}, "arrays": arrays}
    spec = {"name": "a", "title": "t", "licence": "x", "citation": "x", "mains_hz": 50, "layouts": [layout]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(spec))
    request = ("ingest", tmp_path / "raw", tmp_path / "s.zarr", "--cohort", tmp_path / "a.yaml")
    code, out, err = outcome(*request, "--dry-run")
    assert code == 3
    assert "2 unknown_format" in out
    assert "See an example: --check 1." in err
    code, out, _ = outcome(*request, "--dry-run", "--check", 1)
    assert code == 3
    assert "such as 0.h5: found no dataset 'ecgg'" in out
    assert outcome(*request)[0] == 3


def test_a_header_key_that_no_recording_has_is_named(
    make_cohort: Callable[..., Any], tmp_path: Path, outcome: Callable[..., Any]
) -> None:
    raw = make_cohort(patients=3)
    raw.spec.write_text(
        raw.spec.read_text().replace("Patient ID", "Pationt ID").replace("header: AF", "header: Quite another")
    )
    request = ("ingest", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec)
    for more in (["--dry-run"], []):
        code, out, _ = outcome(*request, *more)
        assert code == 0
        assert "header Pationt ID: no recording has this key, so it says nothing about patient. Did you mean" in out
        assert "Did you mean Patient ID?" in out
        assert "header Quite another: no recording has this key, so it says nothing about label af. Correct" in out


def test_a_key_that_some_recordings_have_is_none_of_these(make_cohort: Callable[..., Any], tmp_path: Path) -> None:
    raw = make_cohort(patients=3)
    header = sorted(raw.folder.glob("*.hea"))[-1]
    for path in sorted(raw.folder.glob("*.hea"))[:-1]:
        path.write_text(path.read_text().replace("# AF: ", "# Other: "))
    assert "# AF: " in header.read_text()
    assert ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec)).not_understood == ()


def test_a_dry_run_finds_another_description(make_cohort: Callable[..., Any], tmp_path: Path) -> None:
    raw = make_cohort(patients=3)
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    raw.spec.write_text(raw.spec.read_text().replace("patient: {header: Patient ID}", "patient: {header: Name}"))
    with pytest.raises(SpecError, match="another description"):
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(**DRY))


def test_a_dry_run_estimates_what_a_run_takes(
    make_cohort: Callable[..., Any], tmp_path: Path, outcome: Callable[..., Any]
) -> None:
    raw, store = make_cohort(patients=12), tmp_path / "s.zarr"
    code, said, _ = outcome("ingest", raw.folder, store, "--cohort", raw.spec, "--dry-run")
    assert code == 0
    assert "a run would take about 0.8 MB of store and 0 s of one core" in said
    trial = ingest(raw.folder, store, str(raw.spec), IngestOptions(**DRY)).trial
    assert trial is not None
    assert trial.cost.requests == 0
    ingest(raw.folder, store, str(raw.spec))
    signals = sum(path.stat().st_size for path in store.glob("signals/**/c/**/*") if path.is_file())
    assert signals / 3 < trial.cost.store_bytes < 3 * signals


def test_a_dry_run_estimates_the_requests(
    make_cohort: Callable[..., Any], tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, served = make_cohort(patients=9), []
    for path in raw.folder.iterdir():
        Bucket(bucket_url).put(f"raw/{path.name}", path)
    serving = pytest.importorskip("werkzeug.serving")
    real = serving.WSGIRequestHandler.run_wsgi
    monkeypatch.setattr(
        serving.WSGIRequestHandler, "run_wsgi", lambda handler: (served.append(handler.path), real(handler))
    )
    source = f"{bucket_url}/raw"
    trial = ingest(source, tmp_path / "s.zarr", str(raw.spec), IngestOptions(**DRY)).trial
    assert trial is not None
    served.clear()
    ingest(source, tmp_path / "s.zarr", str(raw.spec))
    assert trial.cost.requests == pytest.approx(len(served), rel=0.2)
