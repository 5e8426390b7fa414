"""What every recipe serves, collected from the registry: ingest, opening, batches, training, embeddings, reports."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import capezoo
import ecgcohorts as ec
from capezoo import encoders
from capezoo.specs import EncoderSpec, InputSpec, RunConfig
from capezoo.training.checkpoint import trained
from capezoo.training.loop import pretrain
from ecgcohorts.cli import program as cli
from ecgcohorts.errors import RecipeMismatch
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess.recipes import CAPE_V1, get_recipe, recipe_names
from ecgcohorts.preprocess.steps import Recipe, RecordStatistics, Resample
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.report.html import report
from ecgcohorts.report.paper import plot_record
from ecgcohorts.simulate import HOSPITALS, simulate

NAMES = recipe_names()
PATIENTS = 12


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one simulated hospital, and a key."""
    folder = tmp_path_factory.mktemp("raw")
    simulate(folder / "raw", patients_per_cohort=PATIENTS, seed=3, hospitals=[HOSPITALS["north"]])
    (folder / "key").write_text(bytes(range(32)).hex())
    return folder


def stored(raw: Path, out: Path, recipe: str | Path) -> ec.Store:
    source = raw / "raw" / "north"
    ingest(source, out, str(source / "cohort.yaml"), IngestOptions(recipe=recipe, key_file=raw / "key"))
    return ec.open(out)


def recordings(raw: Path) -> list[ec.Recording]:
    return [one for path in sorted((raw / "raw" / "north" / "records").rglob("*.hea")) for one in ec.read(path)]


def encoder_for(spec: InputSpec) -> torch.nn.Module:
    config = {"widths": [4, 4], "embedding_dim": 6, "kernel": 8, "in_leads": len(spec.leads)}
    model = encoders.build(EncoderSpec(name="cape_resnet", config=config), seed=0)
    model.spec = spec
    return model.eval()


def run_of(spec: InputSpec) -> RunConfig:
    """Two steps on everybody, in the dimensions of the recipe."""
    config = {"widths": [4, 4], "embedding_dim": 6, "kernel": 8, "in_leads": len(spec.leads)}
    settings = {
        "name": "walk",
        "seed": 1,
        "input": spec,
        "encoder": {"name": "cape_resnet", "config": config},
        "sampler": {"name": "in_distribution", "pairs": 4},
        "views": {"mask_probability": 0.5, "mask_samples": [10, 50]},
        "held_out": {"fraction": 0.0},
        "probes": {"patients": 0},
        "curves": False,
        "max_steps": 2,
    }
    return RunConfig.model_validate(settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_cohort_goes_all_the_way(name: str, raw: Path, tmp_path: Path) -> None:
    recipe = get_recipe(name)
    store = stored(raw, tmp_path / "s.zarr", name)
    assert store.recipe == recipe
    assert store.n_rows == len(store.index) == len(recordings(raw))
    assert ec.verify(tmp_path / "s.zarr").problems == ()
    assert store.read([0]).shape == (1, len(recipe.leads), recipe.strip_samples)
    sampler = ec.InDistributionBatchSampler(store.index, pairs=4, seed=0)
    batch = next(iter(ec.Loader(store, sampler)))
    assert batch.signal.shape == (4, 2, len(recipe.leads), recipe.window_samples)
    assert (batch.valid == recipe.window_samples).all()
    spec = InputSpec.of_recipe(recipe)
    embedded = capezoo.embed(encoder_for(spec), store)
    assert embedded.shape == (len(store.index), 6)
    encoder, _, _ = trained(pretrain(store, run_of(spec), tmp_path / "run", progress=lambda report: None))
    assert all(bool(torch.isfinite(value).all()) for value in encoder.state_dict().values())
    page = report(store, tmp_path / "report.html").read_text("utf-8")
    assert f"{recipe.rate_hz:g} samples/s" in page
    assert plot_record(store, 0, tmp_path / "one.svg").stat().st_size > 10_000


@pytest.mark.parametrize("name", NAMES)
def test_ingest_and_arrays_make_the_same_strips(name: str, raw: Path, tmp_path: Path) -> None:
    """One function: what `make_strip` gives is what the store holds, and what an array is embedded from."""
    recipe = get_recipe(name)
    store = stored(raw, tmp_path / "s.zarr", name)
    strips = {one.waveform_digest: make_strip(one, recipe, 50) for one in recordings(raw)}
    for entry, row in enumerate(store.index["row"]):
        strip = strips[bytes(store.index["waveform_digest"][entry])]
        np.testing.assert_array_equal(store.read(row)[0], strip.samples)
        assert store.index["valid_stop"][entry] == strip.valid_stop
        if recipe.record_statistics:
            kept = [[store.index[kind + lead][entry] for lead in recipe.leads] for kind in ("mean_", "deviation_")]
            np.testing.assert_array_equal(np.float32(kept), strip.statistics)
    spec = InputSpec.of_recipe(recipe, "record_lead_z" if recipe.record_statistics else "window_z")
    model = encoder_for(spec)
    from_store = capezoo.embed(model, store)
    by_digest = {one.waveform_digest: one for one in recordings(raw)}
    for entry in range(3):
        one = by_digest[bytes(store.index["waveform_digest"][entry])]
        array = np.asarray(one.signal_mv)[None]
        alone = capezoo.embed(model, array, rate_hz=one.rate_hz, leads=one.leads, unit="mV", mains_hz=50)
        np.testing.assert_allclose(alone[0], from_store[entry], rtol=1e-4, atol=1e-5)


def test_a_store_carries_the_recipe_of_somebody_and_grows_without_its_file(raw: Path, tmp_path: Path) -> None:
    mine = get_recipe("plain-100").changed("mine-1")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(mine.model_dump(mode="json")))
    source, out = raw / "raw" / "north", tmp_path / "s.zarr"
    options = IngestOptions(recipe=file, key_file=raw / "key", limit=5)
    ingest(source, out, str(source / "cohort.yaml"), options)
    file.unlink()
    moved = shutil.move(out, tmp_path / "elsewhere.zarr")
    assert ec.open(moved).recipe == mine
    grown = ingest(source, moved, str(source / "cohort.yaml"), IngestOptions(recipe="mine-1", key_file=raw / "key"))
    assert grown.known == 5
    assert len(ec.open(moved).index) == len(recordings(raw))
    whole = stored(raw, tmp_path / "whole.zarr", as_file(tmp_path, mine))
    by_id = {bytes(one): row for one, row in zip(whole.index["recording_id"], whole.index["row"], strict=True)}
    again = ec.open(moved)
    for one, row in zip(again.index["recording_id"], again.index["row"], strict=True):
        np.testing.assert_array_equal(again.read(row), whole.read(by_id[bytes(one)]))


def test_the_command_takes_a_name_or_a_file(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = as_file(tmp_path, get_recipe("plain-100").changed("mine-1"))
    source, out = raw / "raw" / "north", tmp_path / "s.zarr"
    line = ["ingest", str(source), str(out), "--cohort", str(source / "cohort.yaml"), "--key", str(raw / "key")]
    cli.main([*line, "--recipe", str(file), "--limit", "3"])
    assert ec.open(out).recipe.name == "mine-1"
    cli.main([*line, "--recipe", "mine-1"])  # the store has it
    assert len(ec.open(out).index) == len(recordings(raw))
    for asked, words in (("plain-100", "--recipe mine-1"), ("plain-10", "Did you mean"), (str(tmp_path), "no recipe")):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*line, "--recipe", asked])
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err


def as_file(folder: Path, recipe: Recipe) -> Path:
    path = folder / f"{recipe.name}.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return path


def test_one_name_with_other_steps_is_refused_by_ingest_union_and_weights(raw: Path, tmp_path: Path) -> None:
    mine = get_recipe("plain-100").changed("mine-1")
    other = CAPE_V1.changed("mine-1")
    one = stored(raw, tmp_path / "one.zarr", as_file(tmp_path, mine))
    file = as_file(tmp_path, other)
    two = stored(raw, tmp_path / "two.zarr", file)
    digests = f"{mine.digest[:8]}|{other.digest[:8]}"
    with pytest.raises(RecipeMismatch, match=rf"recipe mine-1 \(({digests})\), expected mine-1 \(({digests})\)"):
        ingest(raw / "raw" / "north", tmp_path / "one.zarr", str(raw / "raw" / "north" / "cohort.yaml"),
               IngestOptions(recipe=file, key_file=raw / "key"))  # fmt: skip
    with pytest.raises(RecipeMismatch, match=rf"found recipe mine-1 \(({digests})\), expected mine-1"):
        ec.open([tmp_path / "one.zarr", tmp_path / "two.zarr"])
    spec = InputSpec.of_recipe(mine)
    assert spec.own_recipe == mine  # which weights carry: InputSpec goes to JSON and back with it
    assert InputSpec.model_validate_json(spec.model_dump_json()) == spec
    model = encoder_for(spec)
    assert capezoo.embed(model, one).shape == (len(one.index), 6)
    with pytest.raises(RecipeMismatch, match="other steps under one name"):
        capezoo.embed(model, two)
    signal = np.asarray(recordings(raw)[0].signal_mv)[None]
    assert capezoo.embed(model, signal, rate_hz=500, leads=recordings(raw)[0].leads, unit="mV").shape == (1, 6)
    with pytest.raises(RecipeMismatch, match="found recipe 'mine-1' "):
        capezoo.embed(encoder_for(InputSpec()), two)


def test_one_name_with_other_steps_names_the_steps_that_differ() -> None:
    first = get_recipe("plain-100").changed("mine-1")
    faster = first.changed("mine-1", Resample(rate_hz=125))
    assert first.told_from(faster)[1].endswith("with resample rate_hz 125.0 instead of 100.0")
    assert faster.told_from(first)[1].endswith("with resample rate_hz 100.0 instead of 125.0")
    filtered = CAPE_V1.changed("mine-1")
    told = first.told_from(filtered)
    names = {step.step for step in filtered.steps} - {step.step for step in first.steps}
    assert names
    assert all(f"the step {name}" in told[1] for name in names)
    assert "no step" not in told[0]
    assert first.told_from(CAPE_V1) == ("mine-1", "cape-v1")


def test_a_run_keeps_the_recipe_of_its_store(raw: Path, tmp_path: Path) -> None:
    mine = get_recipe("plain-100").changed("mine-1")
    store = stored(raw, tmp_path / "s.zarr", as_file(tmp_path, mine))
    unbound = InputSpec.of_recipe(mine).model_copy(update={"own_recipe": None})  # as a YAML configuration names it
    folder = pretrain(store, run_of(unbound), tmp_path / "run", progress=lambda report: None)
    _, config, _ = trained(folder)
    assert config.input.own_recipe == mine
    assert pretrain(store, run_of(unbound), folder, progress=lambda report: None) == folder  # and is continued


def test_later_columns_leave_signals_rows_and_pseudonyms_as_they_are(raw: Path, tmp_path: Path) -> None:
    """Statistics of whole recordings, labels and quality measures stand beside the signals and change nothing else."""
    steps = list(CAPE_V1.steps)
    steps.insert(4, RecordStatistics())
    asked = Recipe(name="cape-v1-with-statistics", steps=tuple(steps))
    source = raw / "raw" / "north"
    plain = stored(raw, tmp_path / "a.zarr", "cape-v1")
    more = stored(raw, tmp_path / "b.zarr", as_file(tmp_path, asked))
    ingest(source, tmp_path / "c.zarr", str(source / "cohort.yaml"), IngestOptions(key_file=raw / "key", quality=False))
    shards = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name / "signals").rglob("*")
                     if path.is_file() and path.parent.name == "0") for name in ("a.zarr", "b.zarr", "c.zarr")]  # fmt: skip
    assert shards[0] == shards[1] == shards[2] != []
    for path in shards[0]:
        assert (tmp_path / "a.zarr" / path).read_bytes() == (tmp_path / "b.zarr" / path).read_bytes()
        assert (tmp_path / "a.zarr" / path).read_bytes() == (tmp_path / "c.zarr" / path).read_bytes()
    added = set(more.index.columns) - set(plain.index.columns)
    assert len(added) == 16
    for name, column in plain.index.columns.items():
        np.testing.assert_array_equal(column, more.index[name])
    assert plain.index.fingerprint == more.index.fingerprint  # what batches depend on
    labelled = copy.deepcopy(plain.index.columns) | {"label_any": np.zeros(len(plain.index), np.float32)}
    assert ec.CohortIndex(labelled, plain.index.cohorts).fingerprint == plain.index.fingerprint


def test_leads_of_all_recipes_are_standard_leads() -> None:
    assert all(set(get_recipe(name).leads) <= set(TWELVE_LEADS) for name in NAMES)
