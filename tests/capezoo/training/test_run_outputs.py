"""What a run leaves for people: probes, curves, status, TensorBoard."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from capezoo.specs import HeldOutSpec, ProbeSpec
from capezoo.training import curves, metrics, probes
from capezoo.training import loop as train
from capezoo.training.data import TrainingData
from capezoo.training.loop import pretrain
from ecgcohorts.errors import SpecError, install_line


@pytest.fixture(scope="module")
def probed(memory_store, config, tmp_path_factory):
    """A run with everything on, of patients of known age and sex."""
    store = memory_store((120, 120))
    rng = np.random.default_rng(0)
    n = store.index.n_patients
    store.index.columns["age"][:] = rng.uniform(20, 80, n)[store.index["patient"]]
    store.index.columns["sex"][:] = rng.integers(0, 2, n)[store.index["patient"]]
    changes = {"probes": ProbeSpec(patients=40, every_steps=4), "curves": True, "tensorboard": True, "max_steps": 6}
    changes["held_out"] = HeldOutSpec(fraction=0.4, every_steps=3)
    reports = []
    return pretrain(
        store, config(**changes), tmp_path_factory.mktemp("probed") / "run", progress=reports.append
    ), reports


def test_probes_are_in_the_metrics_each_with_its_chance(probed, rows_of):
    run, reports = probed
    rows = rows_of(run)
    for name in probes.COLUMNS:
        assert [int(row["step"]) for row in rows if row[name]] == [4, 6]
        assert float(rows[-1][name]) == pytest.approx(reports[-1].probed[name], rel=1e-5)
    assert float(rows[-1]["sex_auc_chance"]) == 0.5
    assert 0.3 < float(rows[-1]["sex_auc"]) < 0.7  # these people's ECGs know nothing of their sex


def test_curves_are_a_picture_with_a_line_for_each_cohort(probed):
    run, _ = probed
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    table = curves.read(run / "metrics.csv")
    assert table["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isfinite(table["val_loss"]).sum() == 2
    assert "cohort" not in table


def test_curves_without_matplotlib_or_numbers(monkeypatch, tmp_path):
    metrics.MetricsFile(tmp_path / "metrics.csv", metrics.columns(["a"]), 0)
    assert curves.draw(tmp_path / "metrics.csv", tmp_path / "empty.png", "nothing yet")
    assert (tmp_path / "empty.png").stat().st_size > 1000
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    assert not curves.draw(tmp_path / "metrics.csv", tmp_path / "none.png", "")
    assert not (tmp_path / "none.png").exists()


def test_tensorboard_has_the_rows_of_the_metrics(probed, rows_of):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, _ = probed
    read = events.EventAccumulator(str(run / "tensorboard")).Reload()
    for name in ("loss", "val_loss", "age_mae", "loss_cohort_a"):
        found = {event.step: event.value for event in read.Scalars(name)}
        expected = {int(row["step"]): float(row[name]) for row in rows_of(run) if row[name]}
        assert found == pytest.approx(expected, rel=1e-5)


def test_tensorboard_that_is_not_installed_is_said_at_once(monkeypatch, store, config, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SpecError, match=re.escape(install_line("tensorboard"))):
        pretrain(store, config(tensorboard=True, max_steps=2), tmp_path / "run")


def test_status_tells_speed_time_left_and_when(probed, monkeypatch, store, config, tmp_path):
    run, _ = probed
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["seconds_left"]) == ("done", 0)
    assert status["ecg_per_s"] > 0
    assert status["val_loss"] < status["val_untrained"] + 1
    assert datetime.now(UTC) - datetime.fromisoformat(status["written"]) < timedelta(hours=1)
    monkeypatch.setattr(train, "STATUS_S", 0.0)
    seen = []

    def look(report):
        seen.append(json.loads((tmp_path / "run" / "status.json").read_text()))

    pretrain(store, config(max_steps=4, checkpoint_every=4), tmp_path / "run", progress=look)
    assert [one["step"] for one in seen] == [1, 2, 3, 4]
    assert [one["state"] for one in seen] == ["running"] * 3 + ["done"]
    assert all(one["loss"] > 0 for one in seen)


def test_seconds_left_are_the_steps_left_at_this_speed_with_its_pauses(store, config):
    from types import SimpleNamespace

    run = SimpleNamespace(windows=train._Run.windows.fget(SimpleNamespace(config=config())))  # 8 pairs: 16 ECGs a step
    speeds = {"ecg_per_s": 160.0, "wall_ecg_per_s": 80.0}
    assert train._seconds_left(run, train.Report(step=10, total_steps=110, loss=0, lr=0, **speeds)) == 20


def test_the_environment_names_kinds_not_machines(probed):
    environment = json.loads((probed[0] / "env.json").read_text())
    assert (environment["device"], environment["processes"], environment["cuda"]) == ("cpu", 1, None)


def patients_of(index):
    return {bytes(one) for one in index.patient_ids}


def test_held_out_patients_are_the_same_whichever_cohorts_and_seed(memory_store, config):
    """By the name of the split alone: not by the order of records, other cohorts, or the run's seed."""
    store = memory_store((60, 60, 60))
    probe = ProbeSpec(patients=5)
    every = TrainingData.prepare(store, config(probes=probe))
    alone = TrainingData.prepare(store, config(cohorts=("cohort_b",), seed=99, probes=probe))
    b = {bytes(i) for i in store.index.where(cohort="cohort_b").patient_ids}
    assert patients_of(every.held_out) & b == patients_of(alone.held_out)
    assert len(patients_of(alone.held_out)) > 5
    assert patients_of(every.probed) & b == patients_of(alone.probed)
    assert len(patients_of(alone.probed)) == 5
    renamed = TrainingData.prepare(store, config(held_out=HeldOutSpec(fraction=0.2, salt="another"), probes=probe))
    assert patients_of(renamed.held_out) != patients_of(every.held_out)


def test_probe_windows_are_the_central_ones_unaltered(store, config):
    columns = store.index.columns
    before = columns["valid_start"].copy(), columns["valid_stop"].copy()
    try:
        columns["valid_start"][:], columns["valid_stop"][:] = 1000, 2000
        columns["valid_stop"][::3] = 1100  # shorter than the window of 256
        data = TrainingData.prepare(store, config(probes=ProbeSpec(patients=3)))
        rows, blocks = zip(*data.probe_windows(), strict=True)
    finally:
        columns["valid_start"][:], columns["valid_stop"][:] = before
    windows = np.concatenate(blocks)
    assert np.concatenate(rows).tolist() == data.probed["row"].tolist()
    assert windows.shape == (6, 8, 256)
    for window, row, stop in zip(windows, data.probed["row"], data.probed["valid_stop"], strict=True):
        start = 1372 if stop == 2000 else 1000
        there = store.signals[row][:, start : min(start + 256, stop)]
        assert (window[:, : there.shape[1]] == there).all()
        assert (window[:, there.shape[1] :] == -32768).all()


def test_measuring_does_not_change_the_weights(probed, memory_store, config, store, tmp_path, weights):
    with_probes = pretrain(store, config(max_steps=4, probes=ProbeSpec(patients=9, every_steps=1)), tmp_path / "with")
    without = pretrain(store, config(max_steps=4), tmp_path / "without")
    found, expected = weights(with_probes), weights(without)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_compiled_it_trains_the_same_parameters(store, config, tmp_path, monkeypatch, weights, rows_of):
    """Traced and split into forward and backward as for a GPU, but not turned into machine code: that takes minutes."""
    compiled = []
    real = torch.nn.Module.compile

    def compile_quickly(module, **options):
        compiled.append(options)
        real(module, backend="aot_eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_quickly)
    changes = {"max_steps": 3, "held_out": HeldOutSpec(fraction=0.2, every_steps=2)}
    changes |= {
        "encoder": {"config": {"widths": [8], "embedding_dim": 8, "stem_stride": 4}}
    }  # no dropout: same numbers
    runs = {}
    for compiling in (False, True):
        compute = {"compile": compiling, "precision": "bf16-mixed"}
        runs[compiling] = pretrain(store, config(**changes, compute=compute), tmp_path / str(compiling))
    assert compiled == [{"dynamic": False}]
    assert weights(runs[True]).keys() == weights(runs[False]).keys()
    for found, expected in zip(rows_of(runs[True]), rows_of(runs[False]), strict=True):
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=0.02)
        assert bool(found["val_loss"]) == bool(expected["val_loss"])


def test_panels_hold_what_a_run_has_measured_and_read_runs_from_before_as_well():
    golden = Path(__file__).parents[2] / "golden" / "run-1" / "metrics.csv"
    table = curves.read(golden)
    drawn = {panel.title: panel for panel in curves.panels(table)}
    assert len(drawn) == 6
    held_out = drawn["loss of held-out patients (dashed: untrained)"]
    assert set(held_out.curves) == {"all", "all, dashed", "cohort_a", "cohort_b"}
    assert held_out.dashed == ["all, dashed"]
    step, loss = held_out.curves["all"]
    assert np.isfinite(loss).all()
    assert step.tolist() == table["step"][np.isfinite(table["val_loss"])].tolist()
    assert set(drawn["training loss, running mean"].curves) == {"all batches", "cohort_a", "cohort_b"}
    assert [panel.title for panel in drawn.values() if panel.log] == ["gradient norm, learning rate"]
