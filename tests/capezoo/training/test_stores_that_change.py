"""A training run whose store goes away for a while, or changes, as stores on clusters do."""

import csv
import json
import threading
import time
from pathlib import Path

import pytest

import ecgcohorts as ec
from capezoo.specs import HeldOutSpec, InputSpec, SamplerSpec
from capezoo.training.loop import pretrain
from ecgcohorts.errors import StoreError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.simulate import simulate
from ecgcohorts.store.remote.copy import copy_store
from ecgcohorts.store.upkeep.remove import remove_patient

SMALL = {"input": InputSpec(length=256), "sampler": SamplerSpec(groups=4), "held_out": HeldOutSpec(fraction=0.0)}
PATIENTS = 24


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of a simulated hospital."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    simulate(tmp_path / "raw", patients_per_cohort=PATIENTS, seed=0)
    raw = tmp_path / "raw" / "north"
    ingest(raw, tmp_path / "s.zarr", str(raw / "cohort.yaml"), IngestOptions(quality=False))
    return tmp_path / "s.zarr"


def test_a_run_goes_on_after_an_outage_of_ten_seconds(folder, config, weights, tmp_path, bucket_url, door):
    copy_store(folder, f"{bucket_url}/s.zarr")
    undisturbed = pretrain(ec.open(folder), config(**SMALL), tmp_path / "undisturbed")
    down: list[int] = []

    def interrupt(report) -> None:
        if not down:
            down.append(report.step)
            door.close()
            threading.Timer(10, door.open).start()

    run = pretrain(ec.open(f"{bucket_url}/s.zarr"), config(**SMALL), tmp_path / "run", progress=interrupt)
    assert down
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    found, expected = weights(run), weights(undisturbed)
    assert all(found[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_run_stops_with_the_reason_when_a_patient_is_removed(folder, config, tmp_path, where, request):
    url = None
    if where == "bucket":
        url = f"{request.getfixturevalue('bucket_url')}/s.zarr"
        copy_store(folder, url)
    store = ec.open(url or folder)
    with (tmp_path / "raw" / "truth.csv").open(newline="") as file:
        patient = next(row["patient_id"] for row in csv.DictReader(file) if row["cohort"] == "north")
    steps: list[int] = []

    def remove(report) -> None:
        steps.append(report.step)
        if report.step == 3:
            assert remove_patient(folder, "north", patient).recordings
            if url:
                copy_store(folder, url)
                time.sleep(1)  # a bucket is asked at most once a second

    with pytest.raises(StoreError, match="a patient was removed from the store since you opened it"):
        pretrain(store, config(**SMALL, max_steps=400), tmp_path / "run", progress=remove)
    assert steps == [1, 2, 3]  # batches 4 to 6 had been read by then
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
