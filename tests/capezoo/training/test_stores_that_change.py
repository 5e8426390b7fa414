"""A training run whose store goes away for a while, or changes, as stores on clusters do."""

import csv
import json
import threading
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


def test_a_run_stops_with_the_reason_when_a_patient_is_removed(folder, config, tmp_path):
    store = ec.open(folder)
    with (tmp_path / "raw" / "truth.csv").open(newline="") as file:
        patient = next(row["patient_id"] for row in csv.DictReader(file) if row["cohort"] == "north")
    gone: list[int] = []

    def remove(report) -> None:
        if not gone:
            gone.append(remove_patient(folder, "north", patient).recordings)

    with pytest.raises(StoreError, match="Open the store again"):
        pretrain(store, config(**SMALL, max_steps=400), tmp_path / "run", progress=remove)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
