"""KEY=VALUE: every key known, every value checked, all in one line."""

import time
from pathlib import Path

import pytest

from capezoo import runs
from capezoo.specs import RunConfig
from capezoo.specs.settings import changed
from capezoo.training.checkpoint import trained
from capezoo.training.loop import pretrain
from ecgcohorts.errors import RecipeMismatch, SourceError, SpecError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.store import open_store

RUN = runs.get("cape_z", seed=1)


def with_(*settings: str) -> RunConfig:
    return changed(RUN, settings)


def test_values_of_every_kind() -> None:
    run = with_(
        *("optimiser.lr=1e-3", "sampler.groups=16", "sampler.name=patient_pairs", "optimiser.clip_norm=0.5"),
        *("cohorts=[ptb_xl, code15]", "encoder.config.widths=[8,16]", "encoder.config.norm_eps=1e-5", "curves=false"),
        "name=a-b",
    )
    assert (run.optimiser.lr, run.sampler.groups, run.sampler.name) == (1e-3, 16, "patient_pairs")
    assert (run.optimiser.clip_norm, run.cohorts, run.curves, run.name) == (0.5, ("ptb_xl", "code15"), False, "a-b")
    assert run.encoder.config == {"widths": [8, 16], "norm_eps": 1e-5}
    assert with_("optimiser.clip_norm=1", "optimiser.clip_norm=null").optimiser.clip_norm is None
    whole = with_("encoder={name: cape_resnet, config: {kernel: 8}}").encoder
    assert (whole.name, whole.config) == ("cape_resnet", {"kernel": 8})
    assert with_('encoder.config={"widths":[8,8],"embedding_dim":16}').encoder.config == {
        "widths": [8, 8],
        "embedding_dim": 16,
    }


def test_settings_left_by_the_part_that_was_replaced_are_called_the_runs() -> None:
    run = changed(RUN, ["objective.config.temperature=0.2"])
    with pytest.raises(
        SpecError, match=r"objective byol: found 'temperature' of the run's own objective, .*config=\{\}'"
    ):
        changed(run, ["objective.name=byol", "objective.config.hidden=16"])
    whole = changed(run, ["objective.name=byol", "objective.config={}", "objective.config.hidden=16"]).objective
    assert (whole.name, whole.config) == ("byol", {"hidden": 16})
    with pytest.raises(SpecError, match="objective byol: found unknown key 'hiden'"):
        changed(RUN, ["objective.name=byol", "objective.config.hiden=16"])


def test_nothing_set_changes_nothing() -> None:
    assert with_() == RUN
    assert with_("sampler.groups=512") == RUN


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=1", "--set: found unknown key 'lr', expected one of name, seed, encoder, objective"),
        ("optimizer.lr=1", "--set: found unknown key 'optimizer', expected one of name, seed"),
        ("optimiser.rate=1", "--set: found unknown key 'optimiser.rate', expected one of lr, betas, eps"),
        (
            "encoder.config.widht=1",
            "encoder cape_resnet: found unknown key 'widht', expected one of in_leads, embedding",
        ),
        ("objective.config.temperature=0", "objective info_nce: found 0 for 'temperature'"),
        ("encoder.name=vgg", "'vgg', expected one of cape_resnet"),
        ("sampler.groups=many", "--set: found 'many' for 'sampler.groups', expected: a whole number"),
        ("sampler.groups=1.5", "--set: found 1.5 for 'sampler.groups'"),
        ("compute.batch_norm=both", "for 'compute.batch_norm', expected: 'sync', 'local' or 'per_cohort'"),
        ("epochs.x=1", "'epochs.x', but 'epochs' has no keys of its own: epochs=VALUE"),
        ("epochs", "--set: found 'epochs', expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("seed=3", "expected the seed as an option of its own: --seed 3"),
        ("optimiser.lr=NaN", "for 'optimiser.lr'"),
        ("name=[unclosed", "'[unclosed' for 'name'"),
    ],
)
def test_what_does_not_fit_is_one_line(setting: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        with_(setting)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def plain_store(simulated: Path, tmp_path_factory: pytest.TempPathFactory):
    """One cohort in twelve leads at 100 Hz."""
    folder = tmp_path_factory.mktemp("plain")
    key, source = folder / "key", simulated / "raw" / "north"
    key.write_text(bytes(range(32)).hex())
    ingest(source, folder / "s.zarr", str(source / "cohort.yaml"), IngestOptions(key_file=key, recipe="plain-100"))
    return open_store(folder / "s.zarr")


SHORT = ("sampler.groups=4", "max_steps=2", "probes.patients=0", "curves=false", "held_out.batches_per_cohort=1")


@pytest.mark.parametrize("name", ["byol_small", "cpc_small"])
def test_a_recipe_is_all_that_a_store_of_another_one_needs(plain_store, name: str, tmp_path: Path) -> None:
    named = runs.get(name, seed=0)
    with pytest.raises(RecipeMismatch, match=r"'plain-100' .expected 'cape-v1'.*--set input.recipe=plain-100;"):
        pretrain(plain_store, changed(named, SHORT), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    config = changed(named, ["input.recipe=plain-100", *SHORT])
    assert (config.input.leads, config.input.rate_hz, config.input.length) == (TWELVE_LEADS, 100, 500)
    encoder, used, state = trained(pretrain(plain_store, config, tmp_path / "run", progress=lambda report: None))
    assert (state["step"], used.encoder.config["in_leads"], encoder.config.in_leads) == (2, 12, 12)
    pretrain(plain_store, config, tmp_path / "run", progress=lambda report: None)  # the same run, found done


def test_what_is_set_beside_a_recipe_stays(plain_store, tmp_path: Path) -> None:
    named = runs.get("byol_small", seed=0)
    for settings in (["input.recipe=plain-100", "input.length=300"], ["input.length=300", "input.recipe=plain-100"]):
        assert changed(named, settings).input.length == 300
    same = changed(named, ["input.length=2000"])
    assert changed(same, ["input.recipe=cape-v1"]) == same
    for setting, message in (
        ("input.leads=[I, II]", "leads I II III .*expected I II.*drop input.leads from the settings"),
        ("input.length=2000", "strips of 1000 samples .expected at least 2000.*drop input.length"),
        ("encoder.config.in_leads=8", "cape_resnet takes 8 leads .*, and input.leads names 12. Drop in_leads"),
        ("input.length=100", "view zero_span: found a span of 140 samples in a window of 100"),
    ):
        with pytest.raises(SpecError if "drop" not in message else RecipeMismatch, match=message):
            pretrain(plain_store, changed(named, ["input.recipe=plain-100", *SHORT, setting]), tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "found key 'name' twice"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{', '.join([f'*{b}'] * 9)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)),
         "values"),
        ("name: " + "[" * 100_000, "(levels|nesting depth)"),
        ("name: " + "9" * 100_000, "which is no number"),
        ("x" * (2 << 20), "more than 1048576 bytes"),
    ],
    ids=["twice", "aliases", "brackets", "digits", "long"],
)  # fmt: skip
def test_a_run_of_a_stranger_is_refused_at_once(text, words, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    began = time.perf_counter()
    with pytest.raises(SourceError, match=r"run.yaml: cannot be read \(.*" + words):
        runs.load(path, seed=0)
    assert time.perf_counter() - began < 1
