"""Whole runs of every objective, collected from the registry: killed and resumed, on any number of workers, written down."""

import functools
import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ecgcohorts as ec
from capezoo.specs import (
    EncoderSpec,
    HeldOutSpec,
    InputSpec,
    ObjectiveSpec,
    ProbeSpec,
    RunConfig,
    SamplerSpec,
    ViewSpec,
)
from capezoo.training import checkpoint, device
from capezoo.training.checkpoint import trained
from capezoo.training.data import TrainingData
from capezoo.training.loop import pretrain
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex

NAMES = plugins.names("capezoo.objectives")
HELPERS = Path(__file__).with_name("conftest.py")
# Where the defaults are large for a test; an objective that is not here is run with them.
SMALL: dict[str, dict[str, Any]] = {
    "byol": {"hidden": 16, "projection": 8},
    "cpc": {"ahead": 2, "negatives": 8},
    "data2vec": {"span": 3, "mask_share": 0.5},
    "dinosr": {"span": 3, "mask_share": 0.5, "codes": 16},
    "hubert_sinkhorn": {"span": 3, "mask_share": 0.5, "prototypes": [8, 16]},
    "jepa": {"shortest": 3},
    "wav2vec2": {"span": 3, "codes": 8, "projection": 16, "negatives": 4},
    "wav2vec2_cmsc": {"span": 3, "codes": 8, "projection": 16, "negatives": 4},
    "jepa_vit": {"heads": 2, "shortest": 3},
    "mae": {"width": 16, "depth": 1, "heads": 2},
}
VIT = {"patch": 16, "embedding_dim": 16, "head_dim": 8, "depth": 2}


def run_of(name: str, config: Any, **changes: Any) -> RunConfig:
    """The tiny run with this objective, and the sampler and encoder that it needs."""
    needs = plugins.load("capezoo.objectives", name).Objective.needs
    values: dict[str, Any] = {
        "objective": ObjectiveSpec(name=name, config=SMALL.get(name, {})),
        "sampler": SamplerSpec(groups=8, views=needs.views, pairing=needs.pairing[0]),
        "views": (ViewSpec(name="zero_span", config={"samples": (10, 50)}), ViewSpec(name="gain")),
        "checkpoint_every": 5,
    }
    if needs.tokens:
        values["encoder"] = EncoderSpec(name="vit1d", config=VIT | {"causal": needs.causal is not False})
    return config(**(values | changes))


@pytest.fixture(scope="module")
def whole(store, config, tmp_path_factory):
    """The undisturbed run of each objective, and the losses of its steps."""

    @functools.cache
    def made(name: str) -> tuple[Path, list[float]]:
        seen: list[float] = []
        out = tmp_path_factory.mktemp(name) / "run"
        run = pretrain(store, run_of(name, config), out, progress=lambda report: seen.append(report.loss))
        return run, seen

    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_process_resumes_with_the_same_bits(name, whole, store, config, tmp_path, weights, rows_of):
    (tmp_path / "config.json").write_text(run_of(name, config).model_dump_json())
    code = (
        "import importlib.util, os, signal, sys, torch\n"
        "torch.set_num_threads(1)\n"
        f"spec = importlib.util.spec_from_file_location('helpers', {str(HELPERS)!r})\n"
        "helpers = importlib.util.module_from_spec(spec); sys.modules['helpers'] = helpers\n"
        "spec.loader.exec_module(helpers)\n"
        "from pathlib import Path\n"
        "def tell(report):\n"
        "    if report.step == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "config = helpers.RunConfig.model_validate_json((folder / 'config.json').read_text())\n"
        "helpers.pretrain(helpers.make_store(), config, folder / 'run', progress=tell)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [5]
    pretrain(store, run_of(name, config), tmp_path / "run")
    found, expected = weights(tmp_path / "run"), weights(whole(name)[0])
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    terms = plugins.load("capezoo.objectives", name).Objective.terms
    steady = ("step", "lr", "loss", "grad_norm", "val_loss", "effective_rank", *terms, *(f"val_{one}" for one in terms))
    for now, then in zip(rows_of(tmp_path / "run"), rows_of(whole(name)[0]), strict=True):
        assert {key: now[key] for key in steady} == {key: then[key] for key in steady}


@pytest.mark.parametrize("name", NAMES)
def test_losses_do_not_depend_on_how_batches_are_loaded(name, whole, store, config, tmp_path, monkeypatch):
    for number, options in enumerate(({"prefetch": 0}, {"prefetch": 4, "threads": 3})):
        monkeypatch.setattr(ec, "Loader", functools.partial(ec.Loader, **options))
        seen: list[float] = []
        run = tmp_path / str(number)
        pretrain(
            store, run_of(name, config, max_steps=4), run, progress=lambda report, seen=seen: seen.append(report.loss)
        )
        monkeypatch.undo()
        again: list[float] = []
        pretrain(store, run_of(name, config, max_steps=4), tmp_path / f"{number} again",
                 progress=lambda report, again=again: again.append(report.loss))  # fmt: skip
        assert seen == again
        assert seen[0] == whole(name)[1][0]


@pytest.mark.parametrize("name", NAMES)
def test_metrics_hold_its_terms_and_what_is_measured_for_any_method(name, whole, rows_of):
    objective = plugins.load("capezoo.objectives", name).Objective
    rows = rows_of(whole(name)[0])
    for term in objective.terms:
        assert all(row[term] for row in rows)
        assert [int(row["step"]) for row in rows if row[f"val_{term}"]] == [5, 10, 12]
    last = rows[-1]
    assert all(last[column] for column in ("val_loss", "uniformity", "effective_rank", "dead_units"))
    assert bool(last["alignment"]) == (objective.needs.views == 2)
    encoder, config, state = trained(whole(name)[0])
    assert state["step"] == 12
    with torch.no_grad():
        assert encoder(torch.zeros(1, 8, config.input.length)).shape == (1, encoder.num_features)


SAMPLERS = [
    ("in_distribution", "patient"), ("in_distribution", "record"), ("in_distribution", "adjacent"),
    ("patient_pairs", "patient"), ("random_batches", "record"), ("random_batches", "adjacent"),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "pairing"), SAMPLERS)
def test_every_pairing_trains_mixed_and_in_distribution(sampler, pairing, store, config, tmp_path, rows_of):
    spec = SamplerSpec(name=sampler, pairing=pairing, groups=8)
    run = pretrain(store, config(sampler=spec, max_steps=3), tmp_path / "run")
    rows = rows_of(run)
    assert all((row["cohort"] != "") == (sampler == "in_distribution") for row in rows)
    assert rows[-1]["val_loss"]


def test_neighbours_are_drawn_from_recordings_that_hold_both(store, config, caplog):
    columns = {name: store.index[name].copy() for name in store.index.columns}
    length = config().input.length
    columns["valid_stop"][::4] = 2 * length - 1
    short = set(columns["row"][::4].tolist())
    store = replace(store, index=CohortIndex(columns, store.index.cohorts))
    data = TrainingData.prepare(store, config(sampler=SamplerSpec(groups=8, pairing="adjacent")))
    assert f"left out: {len(short)} recordings shorter than 2 windows of {length} samples" in caplog.text
    batches = [data.sampler.plan(0, step).rows for step in range(data.steps_per_epoch)]
    held_out = [batch for _, batch in data.held_out_batches()]
    assert not short & set(np.concatenate(batches).ravel().tolist())
    assert held_out
    assert all((batch.valid == length).all() for batch in held_out)
    crops = TrainingData.prepare(store, config(sampler=SamplerSpec(groups=8, pairing="record")))
    assert set(crops.sampler.rows.tolist()) & short


def test_what_does_not_fit_together_is_refused_before_a_folder_is_made(store, config, tmp_path):
    cases = [
        ({"objective": ObjectiveSpec(name="cpc")}, "objective cpc needs 1 views, sampler in_distribution gives 2"),
        (
            {
                "objective": ObjectiveSpec(name="cpc", config={"ahead": 16}),
                "sampler": SamplerSpec(groups=8, views=1, pairing="record"),
            },
            "objective cpc needs 17 tokens or more in a window, encoder cape_resnet makes 16 of 256 samples",
        ),
        (
            {"sampler": SamplerSpec(groups=8, pairing="adjacent"), "input": InputSpec(length=2800)},
            r"puts 2 windows of 2800 samples side by side, and the store has strips of 4000",
        ),
        ({"views": (ViewSpec(name="zero_span"),)}, "view zero_span: found a span of 560 samples in a window of 256"),
    ]
    for changes, message in cases:
        with pytest.raises(SpecError, match=message):
            pretrain(store, config(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_teacher_is_trained_by_no_optimiser(store, config, tmp_path, weights):
    held_out = HeldOutSpec(fraction=0.2, every_steps=100)
    run = pretrain(store, run_of("byol", config, max_steps=2, held_out=held_out), tmp_path / "run")
    found = weights(run)
    students = [key for key in found if key.startswith(("encoder.", "objective.p")) and found[key].is_floating_point()]
    slots = {key.rpartition(".")[0] for key in found if key.startswith("optimiser.")}
    assert len(slots) == len([key for key in students if "running" not in key])


@pytest.mark.parametrize("normalisation", ["window_z", "window_lead_z", "record_lead_z", "cohort_lead_z", "min_max"])
def test_windows_are_scaled_as_the_input_says_before_any_view(normalisation, memory_store, config):
    """What the encoder sees in training, and what probes see, written out from the stored strips."""
    store = memory_store()
    store.signals[0, :, 100:110] = -32768
    index = store.index
    millivolts = store.signals / 1000.0
    mean, deviation = millivolts.mean(-1), millivolts.std(-1)
    for place, lead in enumerate(store.recipe.leads):
        index.columns[f"mean_{lead}"], index.columns[f"deviation_{lead}"] = mean[:, place], deviation[:, place]
    changed = config(input=InputSpec(length=256, normalisation=normalisation), probes=ProbeSpec(patients=3))
    data = TrainingData.prepare(store, changed)
    courier = device.Courier(data, device.start(changed.compute))
    with closing(data.batches()) as batches:
        batch = next(batches)
    sent = courier.send(batch, "views", 0)
    probed = [(courier.windows(rows, block), rows, block) for rows, block in data.probe_windows()]
    for found, rows, stored in ((sent.scaled(), batch.plan.rows, batch.signal), *probed):
        raw = stored / 1000.0
        if normalisation == "min_max":
            low, high = raw.min(-1, keepdims=True), raw.max(-1, keepdims=True)
            expected = 2 * (raw - low) / (high - low) - 1
        elif normalisation.startswith("window"):
            over = (-2, -1) if normalisation == "window_z" else -1
            expected = (raw - raw.mean(over, keepdims=True)) / raw.std(over, keepdims=True)
        elif normalisation == "record_lead_z":
            expected = (raw - mean[rows][..., None]) / deviation[rows][..., None]
        else:
            cohort = index["cohort"]
            of = [millivolts[cohort == code].swapaxes(0, 1).reshape(8, -1) for code in (0, 1)]
            centre, spread = np.array([one.mean(1) for one in of]), np.array([one.std(1) for one in of])
            expected = (raw - centre[cohort[rows]][..., None]) / spread[cohort[rows]][..., None]
        here = (stored != -32768).all((-2, -1))
        np.testing.assert_allclose(found.numpy()[here], expected[here], rtol=1e-3, atol=1e-3)


def test_a_run_that_scales_by_recordings_wants_a_store_that_knows_them(store, config, tmp_path):
    with pytest.raises(SpecError, match="record_lead_z: found no statistics of I, II, V1"):
        pretrain(store, config(input=InputSpec(length=256, normalisation="record_lead_z")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
