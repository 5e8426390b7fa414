"""Numbers that are no voltages: refused by recipes of mV, kept as they are by recipes that say so, never called mV."""

import io
import json

import numpy as np
import pytest
import torch
import yaml
import zarr
from rich.console import Console

import capezoo
import ecgcohorts as ec
from capezoo import encoders
from capezoo.embedding.embed import adaptation
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts import export
from ecgcohorts.errors import Reason, RejectedRecording, SpecError
from ecgcohorts.ingest.inspect import inspect
from ecgcohorts.ingest.run import IngestOptions, ingest
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.loading.torch import TorchBatches
from ecgcohorts.preprocess.flags import QUALITY_COLUMNS, Flag
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe, load_recipe, recipe_names
from ecgcohorts.preprocess.steps import Store
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers import read
from ecgcohorts.recording import Recording
from ecgcohorts.report.html import report
from ecgcohorts.report.paper import plot_record
from ecgcohorts.samplers import InDistributionBatchSampler
from ecgcohorts.store.upkeep.info import describe, render

RECIPE = {
    "name": "no-unit-100",
    "steps": [
        {"step": "check_rate"},
        {"step": "select_leads", "leads": list(TWELVE_LEADS)},
        {"step": "fill_gaps"},
        {"step": "cut", "strip_s": 10, "window_s": 5},
        {"step": "resample", "rate_hz": 100},
        {"step": "store", "unit": "none"},
    ],
}
ARRAYS = {"kind": "npy", "rate_hz": 100, "unit": "none", "leads": list(TWELVE_LEADS), "axes": "lead_time"}
PATIENTS = 8


def scores(number: int) -> np.ndarray:
    """(12, 1000): z-scores of a made-up signal, every lead by itself."""
    rng = np.random.default_rng(number)
    signal = np.cumsum(rng.normal(size=(12, 1000)), axis=1)
    return (signal - signal.mean(1, keepdims=True)) / signal.std(1, keepdims=True)


@pytest.fixture
def place(tmp_path):
    """A folder of z-scores, `spec.yaml` and `recipe.yaml` beside it."""
    source = tmp_path / "raw"
    source.mkdir()
    for number in range(2 * PATIENTS):
        np.save(source / f"p{number // 2}_{number % 2}.npy", scores(number))
    layout = {
        "reader": "arrays",
        "files": {"include": ["*.npy"]},
        "arrays": ARRAYS,
        "patient": {"path": "(p[0-9]+)_"},
    }
    spec = {"name": "scores", "title": "t", "licence": "l", "citation": "c", "mains_hz": None, "layouts": [layout]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


@pytest.fixture
def store(place):
    options = IngestOptions(recipe=place / "recipe.yaml")
    ingest(place / "raw", place / "s.zarr", str(place / "spec.yaml"), options)
    return ec.open(place / "s.zarr")


def encoder(spec: InputSpec):
    config = {"in_leads": len(spec.leads), "widths": [4, 4], "embedding_dim": 6, "kernel": 8}
    made = encoders.build(EncoderSpec(name="cape_resnet", config=config), seed=0)
    made.spec = spec
    return made


# --- refused by recipes of mV -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_every_installed_recipe_refuses_numbers_without_a_unit(name):
    recording = Recording("r", TWELVE_LEADS, 500.0, analog_mv=np.repeat(scores(0), 5, axis=1), unit="none")
    with pytest.raises(
        RejectedRecording, match=f"found numbers without a unit, expected voltages, which recipe {name}"
    ) as refused:
        make_strip(recording, load_recipe(name))
    assert refused.value.reason == Reason.UNIT


def test_a_store_of_cape_v1_keeps_none_of_them(place):
    report = ingest(place / "raw", place / "mv.zarr", str(place / "spec.yaml"))
    assert report.total.rejected == {"unknown_unit": 2 * PATIENTS}


def test_a_recipe_without_a_unit_refuses_voltages():
    recording = Recording("r", TWELVE_LEADS, 100.0, analog_mv=scores(0))
    with pytest.raises(RejectedRecording, match="found voltages, expected numbers without a unit"):
        make_strip(recording, Recipe.model_validate(RECIPE))


@pytest.mark.parametrize(("factor", "found"), [(100.0, "32.8"), (0.001, "0.002")])
def test_numbers_that_16_bits_cannot_hold_are_refused(factor, found):
    recording = Recording("r", TWELVE_LEADS, 100.0, analog_mv=factor * scores(0), unit="none")
    with pytest.raises(RejectedRecording, match=r"found an amplitude of .*, expected 0.02 to 32.767") as refused:
        make_strip(recording, Recipe.model_validate(RECIPE))
    assert refused.value.reason == Reason.AMPLITUDE


def test_limits_in_mv_and_no_unit_contradict_each_other():
    with pytest.raises(ValueError, match="check_amplitude: its limits are mV"):
        CAPE_V1.changed("mine", Store(unit="none"))


# --- kept as they are ---------------------------------------------------------------------------------------------


def test_stored_numbers_are_the_values_times_1000(store):
    index = store.index
    assert (len(index), index.n_patients) == (2 * PATIENTS, PATIENTS)
    written = {np.rint(1000 * scores(number)).astype(np.int16).tobytes() for number in range(2 * PATIENTS)}
    assert {strip.tobytes() for strip in store.read(index["row"])} == written
    np.testing.assert_allclose(store.read_values(index["row"]), store.read(index["row"]) / 1000, rtol=1e-6)


def test_arrays_and_facts_say_that_there_is_no_unit(store):
    attributes = dict(zarr.open_group(store.path, mode="r")[store.segments[0].folder].attrs)
    assert (attributes["unit"], attributes["scale_factor"]) == ("none", 0.001)
    assert "lsb_uv" not in attributes
    facts = describe(store)
    assert (facts["unit"], facts["lsb_uv"]) == ("none", None)
    shown = io.StringIO()
    Console(file=shown, width=200).print(render(facts))
    assert "recipe no-unit-100, numbers without a unit, codec" in shown.getvalue()


def test_info_says_how_many_recordings_in_mv_look_scaled(place):
    spec = (place / "spec.yaml").read_text().replace("unit: none", "unit: mV")
    # Two more whose leads differ in height.
    for number in range(2):
        np.save(place / "raw" / f"q{number}_0.npy", scores(100 + number) * np.linspace(0.5, 1.5, 12)[:, None])
    (place / "claimed.yaml").write_text(spec.replace("(p[0-9]+)_", "([pq][0-9]+)_"))
    ingest(place / "raw", place / "mv.zarr", str(place / "claimed.yaml"), IngestOptions(recipe="plain-100"))
    facts = describe(ec.open(place / "mv.zarr"))
    assert (facts["recordings"], facts["look_scaled"]) == (2 * PATIENTS + 2, 2 * PATIENTS)
    shown = io.StringIO()
    Console(file=shown, width=300).print(render(facts))
    assert "16 of 18 recordings look scaled (flags equal_spans, unit_variance)" in shown.getvalue()


def test_the_unit_is_part_of_the_recipe_and_mv_leaves_no_trace(store):
    assert store.recipe.unit == "none"
    assert store.recipe.model_dump(mode="json")["steps"][-1] == {"step": "store", "lsb_uv": 1.0, "unit": "none"}
    assert Store().model_dump() == {"step": "store", "lsb_uv": 1.0}
    in_mv = Recipe.model_validate(RECIPE | {"steps": [*RECIPE["steps"][:-1], {"step": "store"}]})
    assert in_mv.digest != store.recipe.digest


def test_measures_in_mv_are_unknown_and_accuse_nobody(store):
    for name in QUALITY_COLUMNS:
        if name.endswith(("_mv", "_mv2")):
            assert np.isnan(store.index[f"q_{name}"]).all(), name
    accused = Flag.EINTHOVEN | Flag.LEAD_I_INVERTED | Flag.EQUAL_SPANS | Flag.UNIT_VARIANCE
    assert not (store.index["quality"] & accused).any()


def test_a_cohort_whose_headers_say_mv_may_say_that_they_are_wrong(make_cohort, tmp_path, place):
    cohort = make_cohort("scaled", 3)
    cohort.spec.write_text(cohort.spec.read_text() + "unit: none\n")
    options = IngestOptions(recipe=place / "recipe.yaml")
    refused = ingest(cohort.folder, tmp_path / "a.zarr", str(cohort.spec)).total
    assert refused.rejected == {"unknown_unit": refused.inputs}
    assert ingest(cohort.folder, tmp_path / "b.zarr", str(cohort.spec), options).total.stored == refused.inputs


def test_a_reader_in_a_process_of_its_own_tells_the_unit(place):
    (place / "raw" / "m.yaml").write_text("ecg_arrays: 1\n" + yaml.safe_dump(ARRAYS) + "files: ['*.npy']\n")
    recordings = read(place / "raw" / "m.yaml")
    assert {recording.unit for recording in recordings} == {"none"}
    np.testing.assert_array_equal(recordings[0].analog_mv, scores(0))
    assert dict(inspect(place / "raw").units) == {"none": 2 * PATIENTS}


# --- never called mV ----------------------------------------------------------------------------------------------


def test_nothing_of_a_store_without_a_unit_is_given_as_mv(store):
    for wanted in (lambda: store.read_mv([0]), lambda: store.lsb_uv):
        with pytest.raises(SpecError, match="found numbers without a unit, expected voltages"):
            wanted()


def test_batches_have_values_and_no_millivolts(store):
    batches = TorchBatches(ec.Loader(store, InDistributionBatchSampler(store.index, pairs=4, seed=0)), pin=False)
    batch = next(iter(batches))
    assert batch.unit == batch.to("cpu").unit == "none"
    with pytest.raises(SpecError, match="found a batch of numbers without a unit"):
        batch.millivolts()
    assert torch.equal(batch.values(), batch.signal.clamp(min=-32767).float() * 0.001)


def test_exports_say_that_there_is_no_unit(store, tmp_path):
    export.export_webdataset(store, tmp_path / "tar")
    export.export_huggingface(store, tmp_path / "hf")
    export.export_wfdb(store, tmp_path / "wfdb")
    for folder in ("tar", "hf"):
        facts = json.loads((tmp_path / folder / "signals.json").read_text())
        assert (facts["unit"], facts["scale_factor"]) == ("none", 0.001)
        assert "lsb_uv" not in facts
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "0.001 of a number without a unit" in card
    header = next((tmp_path / "wfdb").rglob("*.hea")).read_text()
    assert "/NU " in header
    assert not any(word in text for text in (card, header) for word in ("microvolt", "_mv", "mV"))


def test_reports_draw_no_paper_for_numbers_without_a_unit(store, tmp_path):
    report(store, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "ECG paper shows millivolts, and these numbers have no unit" in page
    assert "numbers without a unit, in steps of 0.001" in page
    with pytest.raises(SpecError, match="found numbers without a unit"):
        plot_record(store, 0, tmp_path / "ecg.svg")


def test_weights_need_a_normalisation_of_their_own(store):
    plain = encoder(InputSpec.of_recipe(store.recipe))
    with pytest.raises(SpecError, match="normalisation 'none', expected weights that scale by themselves"):
        capezoo.embed(plain, store)
    spec = InputSpec.of_recipe(store.recipe, "window_lead_z")
    assert (spec.unit, adaptation(encoder(spec), store).unit) == ("none", "none")
    assert capezoo.embed(encoder(spec), store).shape == (2 * PATIENTS, 6)


def test_an_array_gives_what_its_store_gives(store):
    model = encoder(InputSpec.of_recipe(store.recipe, "window_lead_z"))
    raw = np.stack([scores(number) for number in range(2 * PATIENTS)])
    own = capezoo.embed(model, raw, rate_hz=100, leads=TWELVE_LEADS, unit="none")
    order = np.lexsort(capezoo.embed(model, store).T)
    np.testing.assert_allclose(own[np.lexsort(own.T)], capezoo.embed(model, store)[order], atol=1e-6)
    with pytest.raises(SpecError, match="found unit 'mV', expected none, which recipe no-unit-100"):
        capezoo.embed(model, raw, rate_hz=100, leads=TWELVE_LEADS, unit="mV")


def test_weights_of_mv_take_them_only_if_forced_and_scaling_by_themselves(store):
    in_mv = Recipe.model_validate(RECIPE | {"name": "mine", "steps": [*RECIPE["steps"][:-1], {"step": "store"}]})
    model = encoder(InputSpec.of_recipe(in_mv, "window_lead_z"))
    with pytest.raises(ec.EcgError, match=r"unit 'none' \(expected 'mV'\)"):
        capezoo.embed(model, store)
    plan = adaptation(model, store, force_recipe=True)
    assert plan.forced == ("recipe 'no-unit-100' (expected 'mine')", "unit 'none' (expected 'mV')")
    assert "numbers without a unit taken for mV" in plan.steps(model.spec)
    with pytest.raises(SpecError, match="normalisation 'none'"):
        capezoo.embed(encoder(InputSpec.of_recipe(in_mv)), store, force_recipe=True)
    with pytest.raises(SpecError, match="found unit 'none', expected a voltage"):
        capezoo.embed(model, scores(0)[None], rate_hz=100, leads=TWELVE_LEADS, unit="none")
