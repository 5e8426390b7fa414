"""KEY=VALUE: every key known, every value checked, all in one line."""

import pytest

from capezoo import runs
from capezoo.cli.settings import changed
from capezoo.specs import RunConfig
from ecgcohorts.errors import SpecError

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
        ("sampler.groups=many", "--set: found 'many' for 'sampler.groups', expected: Input should be a valid integer"),
        ("sampler.groups=1.5", "--set: found 1.5 for 'sampler.groups'"),
        ("compute.batch_norm=both", "for 'compute.batch_norm', expected: Input should be 'sync' or 'local'"),
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
