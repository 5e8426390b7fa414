"""Training: it learns, writes down what it does, and stops where it must."""

import json
import os
import shutil
from dataclasses import replace
from importlib.metadata import version
from math import cos, log, pi
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from capezoo import encoders
from capezoo.errors import TrainingDiverged
from capezoo.objectives import _contrastive
from capezoo.specs import HeldOutSpec, OptimiserSpec, RunConfig, SamplerSpec, derive_seed
from capezoo.training import checkpoint, device
from capezoo.training.checkpoint import trained
from capezoo.training.data import TrainingData
from capezoo.training.loop import pretrain
from ecgcohorts.errors import PlanImpossible, RecipeMismatch, SourceError, SpecError, StateMismatch
from ecgcohorts.preprocess.recipes import CAPE_V1

STEPS = 12  # of the tiny run


def test_no_bar_is_drawn_off_a_terminal(store, tmp_path, capfd, config):
    pretrain(store, config(max_steps=2), tmp_path / "run")
    assert capfd.readouterr() == ("", "")


def test_a_finished_run_is_left_as_it_is(store, tmp_path, config):
    run = pretrain(store, config(max_steps=2), tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    calls = []
    pretrain(store, config(max_steps=2), run, progress=calls.append)
    assert calls == []
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_run_folder(undisturbed, store, config):
    assert RunConfig.model_validate(yaml.safe_load((undisturbed / "config.yaml").read_text())) == config()
    status = json.loads((undisturbed / "status.json").read_text())
    assert (status["state"], status["step"], status["total_steps"]) == ("done", STEPS, STEPS)
    assert checkpoint.steps(undisturbed / "checkpoints") == [10, STEPS]  # the two newest
    environment = json.loads((undisturbed / "env.json").read_text())
    assert environment["torch"] == version("torch")
    data = json.loads((undisturbed / "data.json").read_text())
    assert data["store_fingerprint"] == store.fingerprint
    trained_on = {use["name"]: use["patients"] for use in data["cohorts"]}
    held_out = {use["name"]: use["patients"] for use in data["held_out"]}
    assert {name: trained_on[name] + held_out[name] for name in trained_on} == {"cohort_a": 40, "cohort_b": 30}
    assert set(data["crop_slack_samples"]) == {"cohort_a", "cohort_b"}
    digests = np.frombuffer((undisturbed / "training_digests.bin").read_bytes(), np.uint8).reshape(-1, 16)
    assert len(digests) == 2 * sum(trained_on.values())
    assert {bytes(d) for d in digests} < {bytes(d) for d in store.index["waveform_digest"]}
    text = "".join(path.read_text() for path in undisturbed.glob("*.json")) + (undisturbed / "config.yaml").read_text()
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text


def test_metrics_hold_what_they_promise(undisturbed, rows_of):
    rows = rows_of(undisturbed)
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert [row["lr"] for row in rows] == [f"{0.005 * (1 + cos(pi * t / STEPS)):.6g}" for t in range(STEPS)]
    assert {row["cohort"] for row in rows} == {"cohort_a", "cohort_b"}
    measured = [int(row["step"]) for row in rows if row["val_loss"]]
    assert measured == [5, 10, 12]
    last = rows[-1]
    assert 1 <= float(last["effective_rank"]) <= 8
    assert 0 <= int(last["dead_units"]) <= 8
    assert 0 < float(last["alignment"]) < 4
    assert float(last["uniformity"]) < 0
    assert 0 <= float(last["wait_share"]) <= 1
    assert float(last["ecg_per_s"]) > 0
    losses = [float(row["loss"]) for row in rows if row["cohort"] == "cohort_a"]
    running = losses[0]
    for loss in losses[1:]:
        running = 0.9 * running + 0.1 * loss
    assert float(last["loss_cohort_a"]) == pytest.approx(running, rel=1e-4)


@pytest.mark.parametrize("name", ["in_distribution", "patient_pairs"])
def test_it_learns_to_recognise_patients_it_never_saw(name, tmp_path, memory_store, config, rows_of):
    changes = {"sampler": SamplerSpec(name=name, groups=16), "optimiser": OptimiserSpec(lr=0.01), "max_steps": 80}
    run = pretrain(memory_store((160, 120)), config(**changes, log_every=80, checkpoint_every=80), tmp_path / "run")
    last = rows_of(run)[-1]
    # 16 pairs at most, fewer where a cohort has fewer held-out patients: the bound follows.
    assert float(last["val_untrained"]) == pytest.approx(log(31), abs=0.2)
    assert float(last["val_loss"]) < float(last["val_untrained"]) - 0.5
    assert (last["cohort"] == "") == (name == "patient_pairs")


def test_single_recording_patients_pair_with_themselves_if_asked(tmp_path, memory_store, config):
    singles = memory_store(records=1)
    with pytest.raises(PlanImpossible, match="singles='self'"):
        pretrain(singles, config(), tmp_path / "refused")
    run = pretrain(singles, config(sampler=SamplerSpec(groups=8, singles="self"), max_steps=2), tmp_path / "run")
    assert json.loads((run / "status.json").read_text())["state"] == "done"


def test_small_cohorts_are_refused_or_left_out_and_named(tmp_path, memory_store, config):
    uneven = memory_store((40, 6))
    with pytest.raises(PlanImpossible, match="cohort_b has"):
        pretrain(uneven, config(), tmp_path / "refused")
    run = pretrain(uneven, config(sampler=SamplerSpec(groups=8, small_groups="drop"), max_steps=2), tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    assert list(data["sampler"]["left_out"]) == ["cohort_b"]
    assert [use["name"] for use in data["cohorts"]] == ["cohort_a"]


def test_how_much_longer_recordings_are_than_a_window_is_kept_by_cohort(store, config):
    columns = dict(store.index.columns)
    in_b = columns["cohort"] == 1
    columns["valid_start"] = np.zeros(len(in_b), "i4")
    columns["valid_stop"] = np.where(in_b, config().input.length + 134, config().input.length + 1200).astype("i4")
    columns["valid_stop"][np.flatnonzero(in_b)[::3]] += 800
    index = replace(store.index, columns=columns)
    known = TrainingData.prepare(replace(store, index=index), config(held_out=HeldOutSpec(fraction=0.0))).summary()
    assert known["crop_slack_samples"] == {
        "cohort_a": {"least": 1200, "median": 1200},
        "cohort_b": {"least": 134, "median": 134},
    }


def test_chosen_cohorts_only(store, tmp_path, config, rows_of):
    run = pretrain(store, config(cohorts=("cohort_b",), max_steps=3), tmp_path / "run")
    assert {row["cohort"] for row in rows_of(run)} == {"cohort_b"}
    with pytest.raises(SpecError, match="no cohort 'cohort_z'"):
        pretrain(store, config(cohorts=("cohort_z",)), tmp_path / "other")


def test_without_held_out_patients_nothing_is_measured(store, tmp_path, config, rows_of):
    run = pretrain(store, config(held_out=HeldOutSpec(fraction=0.0), max_steps=2), tmp_path / "run")
    assert [row["val_loss"] for row in rows_of(run)] == ["", ""]


def test_no_patient_is_trained_on_and_held_out(store, config):

    data = TrainingData.prepare(store, config())  # type: ignore[arg-type]
    assert data.held_out is not None
    trained_on, held_out = ({bytes(i) for i in part["patient_id"]} for part in (data.train, data.held_out))
    assert trained_on
    assert held_out
    assert trained_on.isdisjoint(held_out)
    rows = {row for _, batch in data.held_out_batches() for row in batch.plan.rows.ravel().tolist()}
    assert rows <= set(data.held_out["row"].tolist())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(poison, store, tmp_path, monkeypatch, config):

    real = _contrastive.info_nce
    calls = {"n": 0}

    def poisoned(*given: object) -> torch.Tensor:
        calls["n"] += 1
        return real(*given) * (poison if calls["n"] == 4 else 1.0)

    monkeypatch.setattr(_contrastive, "info_nce", poisoned)
    with pytest.raises(
        TrainingDiverged, match=r"step 3: found loss (nan|inf) .* cohort cohort_[ab].* rows \d+( \d+){15}\.$"
    ):
        pretrain(store, config(), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == []
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("diverged", 3)
    assert "found loss" in status["reason"]


def test_another_run_in_the_folder_is_not_continued(store, undisturbed, config):
    with pytest.raises(StateMismatch, match=r"optimiser.lr 0.01 \(now 0.02\)"):
        pretrain(store, config(optimiser=OptimiserSpec(lr=0.02)), undisturbed)
    with pytest.raises(StateMismatch, match="found a run, expected an empty folder"):
        pretrain(store, config(), undisturbed, resume=False)
    other = replace(store, fingerprint="0" * 64)
    with pytest.raises(StateMismatch, match="another store"):
        pretrain(other, config(), undisturbed)


def test_files_of_others_are_not_replaced_and_logs_are_no_hindrance(store, tmp_path, config):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.txt").write_text("a scheduler's log")
    (folder / "data.json").write_text("mine")
    with pytest.raises(StateMismatch, match=r"found data.json and no config.yaml"):
        pretrain(store, config(), folder)
    assert (folder / "data.json").read_text() == "mine"
    (folder / "data.json").unlink()
    pretrain(store, config(), folder)
    assert (folder / "log.txt").is_file()


def test_a_run_folder_edited_by_hand_is_refused_in_one_line(store, tmp_path, config, undisturbed):
    cases = [
        ("config.yaml", "", SpecError, "config.yaml: found nothing, expected fields"),
        ("config.yaml", "[1, 2]", SpecError, r"config.yaml: found \[1, 2\], expected fields"),
        ("config.yaml", "a:\n\t- b", SourceError, "config.yaml: cannot be read"),
        ("data.json", "{", SourceError, "data.json: cannot be read"),
    ]
    for number, (name, text, kind, message) in enumerate(cases):
        folder = shutil.copytree(undisturbed, tmp_path / str(number))
        (folder / name).write_text(text)
        with pytest.raises(kind, match=message) as caught:
            pretrain(store, config(), folder)
        assert "\n" not in str(caught.value)


def test_a_rate_factor_that_fits_nothing_is_refused_before_the_folder_is_made(store, tmp_path, config):
    with pytest.raises(SpecError, match="no parameter's name begins with 'encodr'"):
        pretrain(store, config(optimiser=OptimiserSpec(rate_factors={"encodr": 0.1})), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_of_another_recipe_is_refused(store, tmp_path, config):
    other = replace(store, recipe=CAPE_V1.model_copy(update={"name": "cape-ref-1"}))
    with pytest.raises(RecipeMismatch, match="cape-ref-1"):
        pretrain(other, config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trained_gives_the_encoder_in_evaluation_mode(undisturbed, tmp_path, config, weights):
    encoder, its_config, state = trained(undisturbed)
    assert its_config == config()
    assert state["step"] == STEPS
    assert not encoder.training
    expected = weights(undisturbed)
    assert all(torch.equal(value, expected[f"encoder.{name}"]) for name, value in encoder.state_dict().items())
    with pytest.raises(SourceError, match=r"no config\.yaml"):
        trained(tmp_path)


def test_gradient_clipping_bounds_the_update(store, tmp_path, config):
    free = pretrain(store, config(max_steps=1), tmp_path / "free")
    clip = OptimiserSpec(lr=0.01, clip_norm=1e-9, eps=1.0)  # with eps 1, Adam's step is proportional to the gradient
    clipped = pretrain(store, config(max_steps=1, optimiser=clip), tmp_path / "clipped")
    start = trained(free)[0].state_dict()["stem.weight"], trained(clipped)[0].state_dict()["stem.weight"]

    origin = encoders.build(config().encoder, derive_seed(5, "encoder")).state_dict()["stem.weight"]
    moved = [(weight - origin).abs().max().item() for weight in start]
    assert moved[0] > 1e-3
    assert moved[1] < 1e-8


def test_bfloat16_trains(store, tmp_path, config, weights, rows_of):
    run = pretrain(store, config(compute={"precision": "bf16-mixed"}, max_steps=2), tmp_path / "run")
    assert weights(run)["encoder.stem.weight"].dtype == torch.float32
    assert all(np.isfinite(float(row["loss"])) for row in rows_of(run))


def test_every_step_draws_anew_and_held_out_batches_never_change(store, tmp_path, monkeypatch, config):
    seeds, masks = [], []
    real_seeded, real_send = device.seeded, device.Courier.send

    def seeded(seed, on):
        seeds.append(seed)
        return real_seeded(seed, on)

    def send(courier, batch, use, number, sampler=None):
        loaded = real_send(courier, batch, use, number, sampler)
        masks.append((use, number, (loaded.perturbed() == 0).all(dim=2)))  # (group, view, time): zeroed on all leads
        return loaded

    monkeypatch.setattr(device, "seeded", seeded)
    monkeypatch.setattr(device.Courier, "send", send)
    pretrain(store, config(), tmp_path / "run")
    assert len(set(seeds)) == len(seeds) == STEPS
    trained_on = [mask for use, _, mask in masks if use == "views"]
    assert len({mask.numpy().tobytes() for mask in trained_on}) == STEPS
    held_out = {}
    for use, number, mask in masks:
        if use == "held_out":
            held_out.setdefault(number, set()).add(mask.numpy().tobytes())
    assert len(held_out) > 1
    assert all(len(seen) == 1 for seen in held_out.values())
