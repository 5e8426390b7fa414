"""The effect itself, on simulated patients: what mixed batches learn of a device, and batches of one device do not."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from capezoo.evaluate.artefact.rendering import Material
from capezoo.evaluate.artefact.run import run
from capezoo.evaluate.artefact.trial import Cell, Trial
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.simulate import HOSPITALS, simulate
from ecgcohorts.store import open_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("effect")
    simulate(folder, patients_per_cohort=280, seed=0, hospitals=[HOSPITALS["north"]])
    key = folder / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    source = folder / "north"
    ingest(source, folder / "store.zarr", str(source / "cohort.yaml"), IngestOptions(key_file=key, quality=False))
    return Material.of(open_store(Path(folder / "store.zarr")), "north")


def device_auc(trial: Trial) -> float:
    return float(roc_auc_score(trial.device, trial.device_score, multi_class="ovr"))


def shift_years(trial: Trial) -> float:
    """How far another device moves the predicted age, guarded scaler, mean over homes and pretrained devices."""
    years = trial.age_years[1, :, :4]
    at_home = years[np.arange(4), np.arange(4)][:, None]
    return float(np.abs(years - at_home).sum() / (12 * len(trial.patient)))


def test_mixed_batches_learn_the_device_and_in_distribution_batches_do_not(material):
    found = {}
    for arm in ("mixed", "in_distribution", "mixed_per_device"):
        found[arm] = run(material, Cell(kind="tone", strength_uv=200, arm=arm, seed=0))
    auc = {arm: device_auc(trial) for arm, trial in found.items()}
    shift = {arm: shift_years(trial) for arm, trial in found.items()}
    # Measured: 1.00 and 11.4 years mixed, .67 and 1.0 in distribution, .82 and 2.4 mixed with statistics per device.
    assert auc["mixed"] > 0.95, auc
    assert auc["in_distribution"] < 0.8, auc
    assert auc["mixed_per_device"] < 0.9, auc
    for arm in ("in_distribution", "mixed_per_device"):
        assert shift[arm] < shift["mixed"] / 2, shift


def test_without_a_signature_there_is_no_device_to_find(material):
    trial = run(material, Cell(kind="tone", strength_uv=0, arm="mixed", seed=0))
    assert 0.3 < device_auc(trial) < 0.65
    assert shift_years(trial) == pytest.approx(0, abs=1e-9)
