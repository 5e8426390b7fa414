"""Recordings of one lead, through a recipe of one lead in YAML: stored, copies found, and read back."""

import numpy as np
import pytest
import yaml

import ecgcohorts as ec
from ecgcohorts.ingest import IngestOptions, ingest

RECIPE = {
    "name": "lead-i-1",
    "steps": [
        {"step": "check_rate"},
        {"step": "select_leads", "leads": ["I"]},
        {"step": "fill_gaps"},
        {"step": "trim"},
        {"step": "cut", "strip_s": 20, "window_s": 7},
        {"step": "resample", "rate_hz": 400},
        {"step": "band_pass", "low_hz": 0.5, "high_hz": 100, "order": 2, "ends": "even", "pad_s": 2},
        {"step": "notch"},
        {"step": "check_amplitude"},
        {"step": "store"},
    ],
}


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "lead_i.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path / "lead_i.yaml"


def wave(seed):
    """(1, 20 s at 250 Hz) in mV."""
    time = np.arange(5000) / 250
    beats = sum(np.exp(-(((time - centre) / 0.02) ** 2)) for centre in np.arange(0.4, 20, 0.7 + seed / 50))
    return (beats + np.random.default_rng(seed).normal(0, 0.01, 5000))[None].astype("f4")


def test_one_lead_is_stored_and_a_copy_of_it_is_found(tmp_path, recipe):
    source = tmp_path / "raw"
    source.mkdir()
    for number in range(4):
        np.save(source / f"p{number // 2}_{number}.npy", wave(number))
    # The same waveform, padded by its file.
    np.save(source / "p2_9.npy", np.pad(wave(0), ((0, 0), (30, 5))))
    arrays = {"kind": "npy", "rate_hz": 250, "unit": "mV", "leads": ["I"], "axes": "lead_time"}
    layout = {
        "reader": "arrays",
        "files": {"include": ["*.npy"]},
        "arrays": arrays,
        "patient": {"path": "(p[0-9])_"},
    }
    spec = {"name": "wrist", "title": "t", "licence": "l", "citation": "c", "mains_hz": 50, "layouts": [layout]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    made = ingest(source, tmp_path / "s.zarr", str(tmp_path / "spec.yaml"), IngestOptions(recipe=recipe))
    assert (made.total.inputs, made.total.stored, made.total.duplicates) == (5, 4, 1)
    store = ec.open(tmp_path / "s.zarr")
    assert store.recipe.leads == ("I",)
    assert store.read(store.index["row"]).shape == (4, 1, 8000)
    assert len(np.unique(store.index["waveform_digest"], axis=0)) == 4
    assert ec.verify(store.path).ok


@pytest.mark.shared
def test_ecg_id_is_stored_but_for_damaged_files_and_amplitudes_no_ecg_has(tmp_path, recipe, shared):
    made = ingest(shared / "ecg_id", tmp_path / "s.zarr", "ecg_id", IngestOptions(recipe=recipe, quality=False))
    assert made.total.rejected == {"checksum_mismatch": 11, "implausible_amplitude": 2}
    store = ec.open(tmp_path / "s.zarr")
    assert (len(store.index), store.index.n_patients) == (297, 90)
    days = [len(np.unique(store.index["days"][store.index["patient"] == patient])) for patient in range(90)]
    assert sum(several > 1 for several in days) == 19
