"""What nobody would look for by himself stands at the end of an ingest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ecgcohorts.cohorts.catalogue import shared_recordings
from ecgcohorts.ingest import ingest

MakeCohort = Callable[..., Any]


def remarks(outcome: Callable[..., Any], *arguments: object) -> list[str]:
    code, out, err = outcome(*arguments, "--json")
    assert code == 0, err
    return list(json.loads(out)["remarks"])


def change(spec: Path, **values: Any) -> None:
    spec.write_text(yaml.safe_dump(yaml.safe_load(spec.read_text()) | values))


def test_nothing_is_said_of_a_good_cohort(make_cohort: MakeCohort, tmp_path: Path, outcome: Callable[..., Any]) -> None:
    raw = make_cohort(patients=3)
    assert remarks(outcome, "ingest", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec, "--dry-run") == []
    assert remarks(outcome, "ingest", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec) == []


def test_a_draft_that_nobody_finished(make_cohort: MakeCohort, tmp_path: Path, outcome: Callable[..., Any]) -> None:
    raw = make_cohort(patients=3)
    change(raw.spec, title="unknown", licence="unknown")
    request = ("ingest", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec)
    for more in (["--dry-run"], []):
        [line] = remarks(outcome, *request, *more)
        assert line.startswith("description: title and licence still unknown. Fill in")
    change(raw.spec, name="other", licence="CC0-1.0", title="Unknown causes of syncope")
    assert remarks(outcome, "ingest", raw.folder, tmp_path / "t.zarr", "--cohort", raw.spec) == []


def test_recordings_that_look_scaled_are_counted(
    make_cohort: MakeCohort, tmp_path: Path, outcome: Callable[..., Any]
) -> None:
    raw = make_cohort(patients=3)
    for name in sorted(raw.signals)[:4]:
        samples = raw.signals[name].astype(float)
        spans = np.ptp(samples, axis=1, keepdims=True)
        header = (raw.folder / f"{name}.hea").read_text()
        comments = dict(line[2:].split(": ", 1) for line in header.splitlines() if line.startswith("# "))
        raw.add(name, np.rint(samples / spans * 1000).astype(np.int16), **comments)
    _, out, _ = outcome("ingest", raw.folder, tmp_path / "s.zarr", "--cohort", raw.spec)
    assert "4 of 6 new recordings look scaled (flags equal_spans, unit_variance) and may be no millivolts." in out
    assert "say unit: none" in out
    later = make_cohort("south", patients=3, seed=1)  # of this run only
    assert remarks(outcome, "ingest", later.folder, tmp_path / "s.zarr", "--cohort", later.spec) == []


def test_copies_in_another_cohort_are_told(
    make_cohort: MakeCohort, tmp_path: Path, outcome: Callable[..., Any]
) -> None:
    first, second = make_cohort("north", patients=3), make_cohort("south", patients=4, seed=1)
    ingest(first.folder, tmp_path / "s.zarr", str(first.spec))
    name = sorted(first.signals)[0]
    for suffix in (".hea", ".dat"):
        shutil.copy(first.folder / f"{name}{suffix}", second.folder / f"copy{suffix}")
    (second.folder / "copy.hea").write_text((second.folder / "copy.hea").read_text().replace(name, "copy"))
    [line] = remarks(outcome, "ingest", second.folder, tmp_path / "s.zarr", "--cohort", second.spec)
    assert line == "south: copies of recordings of north: 1. They are stored once, in north."


def test_overlaps_known_from_publications_are_told(
    make_cohort: MakeCohort, tmp_path: Path, outcome: Callable[..., Any]
) -> None:
    first, second = make_cohort("north", patients=3), make_cohort("south", patients=3, seed=1)
    overlap = {"cohort": "north", "what": "20 records, of other gain", "found": False}
    change(second.spec, overlaps=[overlap])
    [line] = remarks(outcome, "ingest", second.folder, tmp_path / "s.zarr", "--cohort", second.spec)
    assert line == "south shares recordings with north (20 records, of other gain), which is not in this store."
    ingest(first.folder, tmp_path / "t.zarr", str(first.spec))
    [line] = remarks(outcome, "ingest", second.folder, tmp_path / "t.zarr", "--cohort", second.spec)
    assert line.startswith("south and north share recordings (20 records, of other gain). Copies are not recognised")
    # A preset's own, whichever of the two says so.
    pair = shared_recordings()[0]
    raw = make_cohort(pair.other, patients=3, seed=2)
    [line] = remarks(outcome, "ingest", raw.folder, tmp_path / "u.zarr", "--cohort", raw.spec)[:1]
    assert line.startswith(f"{pair.other} shares recordings with ")


def test_three_steps_say_it_as_well(make_cohort: MakeCohort, tmp_path: Path, outcome: Callable[..., Any]) -> None:
    first, second = make_cohort("north", patients=3), make_cohort("south", patients=2, seed=0)
    ingest(first.folder, tmp_path / "s.zarr", str(first.spec))
    plan = tmp_path / "run.plan"
    for step in (
        ("plan", second.folder, tmp_path / "s.zarr", "--cohort", second.spec, "-o", plan),
        ("encode", plan, "--partition", 0),
    ):
        assert outcome(*step)[0] == 0
    [line] = remarks(outcome, "commit", plan)
    assert line == "south: copies of recordings of north: 3. They are stored once, in north."
