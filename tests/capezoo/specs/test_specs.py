"""Specs: JSON there and back, refusals in one line, every number with its source."""

import json

import pytest
from pydantic import BaseModel, ValidationError

from capezoo import specs
from capezoo.specs import (
    CohortUse,
    EncoderSpec,
    Golden,
    InputSpec,
    Metric,
    ObjectiveSpec,
    OptimiserSpec,
    RunConfig,
    SamplerSpec,
    Training,
    ViewSpec,
    WeightCard,
    derive_seed,
    fingerprint,
    parse,
)
from ecgcohorts.errors import RecipeMismatch, SpecError
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import Resample, SelectLeads

RUN = RunConfig(
    name="cape_z",
    seed=7,
    encoder=EncoderSpec(config={"widths": (16, 32), "dropout": 0.1}),
    views=(
        ViewSpec(name="zero_span", config={"samples": (10, 20)}),
        ViewSpec(name="gain", config={"range": (0.9, 1.1)}),
    ),
    cohorts=("ptb_xl", "code15"),
    max_steps=500,
)
CARD = WeightCard(
    name="cape_z",
    version="1.0.0",
    encoder=RUN.encoder,
    input=InputSpec(),
    objective=ObjectiveSpec(config={"temperature": 0.1}),
    parameters=5,
    embedding_dim=256,
    training=Training(
        run=RUN, cohorts=(CohortUse(name="ptb_xl", patients=2, records=4),), store_fingerprint="ab", steps=9
    ),
    metrics=(Metric(name="age_mae_years", cohort="ptb_xl", value=7.68, low=7.6, high=7.7, n=100),),
    sha256={"model.safetensors": "0" * 64},
    golden=Golden(sha256="1" * 64),
)


@pytest.mark.parametrize(
    "spec", [InputSpec(), EncoderSpec(), ObjectiveSpec(), SamplerSpec(), RUN, CARD], ids=lambda s: type(s).__name__
)
def test_json_there_and_back_is_equal(spec: BaseModel) -> None:
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    assert type(spec).model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RUN.seed = 8


def test_a_run_states_its_seed() -> None:
    with pytest.raises(SpecError, match=r"run\.yaml: found .* for 'seed', expected: Field required"):
        parse(RunConfig, {"name": "x"}, "run.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "x", "seed": 0, "sampler": {"pears": 4}},
            "unknown key 'sampler.pears', expected one of name, pairing, views, groups",
        ),
        ({"name": "x", "seed": 0, "epoch": 4}, "unknown key 'epoch', expected one of name, seed, encoder"),
        ({"name": "x", "seed": 0, "input": {"unit": "uV"}}, "'uV' for 'input.unit'"),
        ({"name": "x", "seed": 0, "sampler": {"pairing": "patient", "views": 1}}, "pairing patient with one view"),
        (
            {"name": "x", "seed": 0, "sampler": {"name": "patient_pairs", "pairing": "record"}},
            "sampler patient_pairs does not pair by record: use random_batches or in_distribution",
        ),
        (
            {"name": "x", "seed": 0, "sampler": {"name": "random_batches"}},
            "does not pair by patient: use patient_pairs",
        ),
        ({"name": "x", "seed": 0, "optimiser": {"final_lr": 1.0}}, "final_lr 1.0: give at most lr, 0.1"),
        (
            {"name": "x", "seed": 0, "optimiser": {"rate_factors": {"encoder.": -1}}},
            "'optimiser.rate_factors.encoder.'",
        ),
        ({"name": "x", "seed": 0, "optimiser": {"betas": [0.9, 1.0]}}, "'optimiser.betas.1'"),
        ({"name": "x", "seed": 0, "views": {"mask": 0.5}}, "views of version 1 have no mask"),
        ({"name": "../x", "seed": 0}, "'../x' for 'name'"),
        ({"name": "x", "seed": 0, "optimiser": {"lr": float("inf")}}, "'optimiser.lr'"),
    ],
)
def test_wrong_values_give_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(RunConfig, values, "run.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_published_defaults() -> None:
    run = RunConfig(name="x", seed=0)
    assert (run.sampler.groups, run.epochs, run.optimiser.lr, run.optimiser.betas, run.optimiser.eps) == (
        512, 200, 0.1, (0.9, 0.999), 1e-7,
    )  # fmt: skip
    assert (run.views, run.optimiser.epsilon) == ((ViewSpec(name="zero_span"),), "keras")
    assert run.input == InputSpec.of_recipe(CAPE_V1)
    assert (run.input.length, run.input.rate_hz, len(run.input.leads)) == (2800, 400.0, 8)


def test_every_number_says_where_it_comes_from() -> None:
    kinds = [k for k in vars(specs).values() if isinstance(k, type) and issubclass(k, specs.Spec)]
    settings = {InputSpec, SamplerSpec, OptimiserSpec, specs.HeldOutSpec, RunConfig}
    assert settings <= set(kinds)
    for kind in settings:
        for name, field in kind.model_fields.items():
            if isinstance(field.default, (int, float, tuple)) and not isinstance(field.default, (bool, BaseModel)):
                assert field.description, f"{kind.__name__}.{name} has no source"


def test_an_input_spec_accepts_its_recipe_and_names_each_difference() -> None:
    InputSpec().require_recipe(CAPE_V1)
    other = CAPE_V1.changed("cape-ref-1", Resample(rate_hz=500.0))
    with pytest.raises(
        RecipeMismatch, match=r"recipe 'cape-ref-1' \(expected 'cape-v1'\); rate_hz 500 \(expected 400\)"
    ):
        InputSpec().require_recipe(other)
    with pytest.raises(RecipeMismatch, match=r"strips of 4000 samples \(expected at least 5000"):
        InputSpec(length=5000).require_recipe(CAPE_V1)
    with pytest.raises(RecipeMismatch, match="leads II I"):
        InputSpec(leads=("I", "II")).require_recipe(CAPE_V1.changed("cape-v1", SelectLeads(leads=("II", "I"))))


def test_fingerprints_follow_the_values() -> None:
    assert fingerprint(RUN) == fingerprint(RunConfig.model_validate_json(RUN.model_dump_json()))
    assert fingerprint(RUN) != fingerprint(RUN.model_copy(update={"seed": 8}))


def test_derived_seeds_are_frozen_and_apart() -> None:
    """If this fails, saved runs resume with other random numbers."""
    assert derive_seed(7, "views", 3) == 2697861975128571394
    keys = {derive_seed(seed, use, step) for seed in range(4) for use in ("views", "forward") for step in range(50)}
    assert len(keys) == 400
    assert all(0 <= key < 2**63 for key in keys)
