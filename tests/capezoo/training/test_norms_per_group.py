"""BatchNorm per group: what each part alone would give, whatever encoder, objective and order of rows."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from capezoo import encoders, objectives
from capezoo.objectives import ViewBatch
from capezoo.specs import ComputeSpec, EncoderSpec, HeldOutSpec, ObjectiveSpec, SamplerSpec
from capezoo.training import device
from capezoo.training.loop import pretrain
from capezoo.training.norms import normalised_per_group
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

SMALL = {
    "cape_resnet": {"widths": [4, 6], "embedding_dim": 8, "stem_stride": 4},
    "ribeiro_resnet": {"widths": [4, 4], "embedding_dim": 8},
    "resnet18_1d": {"embedding_dim": 32},
    "resnet50_1d": {"embedding_dim": 32},
    "s4": {"width": 8, "depth": 2, "dropout": 0.0},
    "transformer1d": {"width": 8, "heads": 2, "feed_forward": 16, "depth": 2},
    "xresnet1d": {"depth": 18, "widths": [4, 4, 4, 4], "stem_widths": [4, 4, 4], "zero_last_norm": False},
}
CODES = np.array([2, 0, 2, 0, 0, 2, 1, 1])


def part(code: int) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(code == CODES))


def batch_of(rows: int = len(CODES), views: int = 2, leads: int = 8, length: int = 128) -> torch.Tensor:
    x = torch.randn(rows, views, leads, length, generator=torch.Generator().manual_seed(0))
    return x * torch.arange(1, rows + 1)[:, None, None, None] + 3


def test_every_encoder_with_batch_norm_is_tried_here():
    networks = {name: encoders.build(EncoderSpec(name=name), 0) for name in plugins.names("capezoo.encoders")}
    has = {name for name, one in networks.items() if any(isinstance(layer, _BatchNorm) for layer in one.modules())}
    assert has == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_each_part_comes_out_as_if_it_were_alone(name):
    encoder = encoders.build(EncoderSpec(name=name, config=SMALL[name]), 0).double().train()
    alone = {code: copy.deepcopy(encoder) for code in np.unique(CODES)}
    x = batch_of(leads=encoder.config.in_leads).double()
    with normalised_per_group(encoder, CODES):
        together = encoder(x.flatten(0, 1)).unflatten(0, (-1, 2))
    together.square().sum().backward()
    for code, one in alone.items():
        expected = one(x[part(code)].flatten(0, 1)).unflatten(0, (-1, 2))
        torch.testing.assert_close(together[part(code)], expected, rtol=1e-7, atol=1e-8)
        expected.square().sum().backward()
    for key, found in encoder.named_parameters():
        summed = sum(dict(one.named_parameters())[key].grad for one in alone.values())
        torch.testing.assert_close(found.grad, summed, rtol=1e-5, atol=1e-7)


def test_views_one_by_one_and_tokens_know_their_groups_too():
    encoder = encoders.build(EncoderSpec(config=SMALL["cape_resnet"]), 0).double().train()
    x = batch_of().double()[:, 1]
    with normalised_per_group(encoder, CODES):
        whole, last = encoder(x), encoder.contextualise(encoder.tokens(x))[-1]
    for code in np.unique(CODES):
        torch.testing.assert_close(whole[part(code)], encoder(x[part(code)]))
    torch.testing.assert_close(last.mean(1), whole)


def test_heads_of_an_objective_are_normalised_per_group_and_a_teacher_is_not():
    encoder = encoders.build(EncoderSpec(config=SMALL["cape_resnet"]), 0)
    byol = objectives.build(ObjectiveSpec(name="byol", config={"hidden": 6, "projection": 4}), encoder, 0)
    trained = nn.ModuleDict({"encoder": encoder, "objective": byol}).double().train()
    x = batch_of().double()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        batch = ViewBatch(x[rows], torch.full((len(rows), 2), 128), rows, None, 0, 1, torch.Generator())
        return byol(encoder, batch).total

    before = copy.deepcopy(trained.state_dict())
    with normalised_per_group(trained, CODES):
        whole = loss(torch.arange(len(CODES)))
    moved = {key for key, value in trained.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert not any("teacher" in key for key in moved)
    parts = []
    for code in np.unique(CODES):
        trained.load_state_dict(before)
        parts.append(loss(part(code)) * len(part(code)))
    torch.testing.assert_close(whole, sum(parts) / len(CODES))


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, ()), (nn.BatchNorm1d, (5,)), (nn.BatchNorm2d, (1, 5))])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_those_of_the_mixture(kind, shape, momentum):
    plain, grouped = kind(3, momentum=momentum), kind(3, momentum=momentum, affine=False)
    for seed in (1, 2, 3):
        x = torch.randn(8, 3, *shape, generator=torch.Generator().manual_seed(seed)) * 40 + 7
        plain(x)
        with normalised_per_group(grouped, [0, 0, 1, 1, 2, 2, 2, 3]):
            y = grouped(x)
        assert y[:2].mean().abs() < 1e-5
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(grouped, name), getattr(plain, name))


def test_a_group_of_one_row_has_the_statistics_of_the_whole_batch():
    plain, grouped = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    x = batch_of(5, 1, 3, 8).transpose(1, 2)
    with normalised_per_group(grouped, np.array([4, 4, 9, 7, 7])):
        y = grouped(x)
    torch.testing.assert_close(y[2], plain(x)[2])
    torch.testing.assert_close(y[3:], nn.BatchNorm2d(3)(x[3:]))
    torch.testing.assert_close(grouped.running_var, plain.running_var)
    # All alone: nothing is left but the whole.
    with normalised_per_group(grouped, np.arange(5)):
        torch.testing.assert_close(grouped(x), plain(x))


@pytest.mark.parametrize("codes", [None, np.zeros(8, int)])
def test_with_one_group_nothing_changes(codes):
    layer, x = nn.BatchNorm1d(3), torch.randn(8, 3)
    expected = copy.deepcopy(layer)(x)
    with normalised_per_group(layer, codes):
        assert torch.equal(layer(x), expected)


def test_what_was_there_comes_back_and_evaluation_uses_running_statistics():
    layer, x = nn.BatchNorm1d(3).eval(), torch.randn(8, 3)
    with normalised_per_group(layer, CODES):
        assert torch.equal(layer(x), nn.BatchNorm1d(3).eval()(x))
        torch.testing.assert_close(layer.train()(x)[part(1)], nn.BatchNorm1d(3)(x[part(1)]))
    assert torch.equal(layer(x), nn.BatchNorm1d(3)(x))
    with pytest.raises(KeyError), normalised_per_group(layer, CODES):
        raise KeyError
    assert "forward" not in vars(layer)


def test_recomputed_blocks_see_their_groups_and_move_nothing_twice():
    encoder = encoders.build(EncoderSpec(config=SMALL["cape_resnet"]), 0).train()
    again = copy.deepcopy(encoder)
    again.set_grad_checkpointing()
    for one in (encoder, again):
        with normalised_per_group(one, CODES):
            one(batch_of()[:, 0]).square().sum().backward()
    for (key, a), (_, b) in zip(encoder.named_parameters(), again.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
    for (key, a), (_, b) in zip(encoder.named_buffers(), again.named_buffers(), strict=True):
        assert torch.equal(a, b), key


def test_in_bfloat16_the_statistics_are_float32():
    layer, x = nn.BatchNorm2d(3), batch_of(8, 3, 1, 64)
    with normalised_per_group(layer, CODES), torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    with normalised_per_group(layer, CODES):
        torch.testing.assert_close(rounded, layer(x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("rows", [7, 12])
def test_rows_that_are_no_multiple_of_the_batch_are_refused(rows):
    with (
        normalised_per_group(layer := nn.BatchNorm1d(3), CODES),
        pytest.raises(SpecError, match=f"found a BatchNorm with {rows} rows in a batch of 8, expected a multiple"),
    ):
        layer(torch.randn(rows, 3))


def run(store, out: Path, config, **changes):
    held_out = HeldOutSpec(fraction=0.2, every_steps=100)
    return pretrain(store, config(**{"held_out": held_out, "max_steps": 6, "checkpoint_every": 3} | changes), out)


PER_COHORT = ComputeSpec(batch_norm="per_cohort")
MIXED = SamplerSpec(name="patient_pairs", groups=8)


def test_a_run_with_batches_of_one_cohort_has_the_same_bits(store, tmp_path, config, weights):
    with_it = weights(run(store, tmp_path / "with", config, compute=PER_COHORT))
    without = weights(run(store, tmp_path / "without", config))
    assert [key for key in without if not torch.equal(with_it[key], without[key])] == []


def test_a_mixed_run_learns_other_weights_and_goes_on_after_a_kill_with_the_same_bits(store, tmp_path, config, weights):
    plain = weights(run(store, tmp_path / "plain", config, sampler=MIXED))
    whole = weights(run(store, tmp_path / "whole", config, sampler=MIXED, compute=PER_COHORT))
    assert not torch.equal(plain["encoder.stem.weight"], whole["encoder.stem.weight"])

    def kill(report):
        if report.step == 4:
            raise KeyboardInterrupt

    changes = {"sampler": MIXED, "compute": PER_COHORT, "max_steps": 6, "checkpoint_every": 3}
    changes["held_out"] = HeldOutSpec(fraction=0.2, every_steps=100)
    with pytest.raises(KeyboardInterrupt):
        pretrain(store, config(**changes), tmp_path / "killed", progress=kill)
    resumed = weights(pretrain(store, config(**changes), tmp_path / "killed"))
    assert [key for key in whole if not torch.equal(resumed[key], whole[key])] == []


def test_what_would_mean_nothing_is_refused_before_a_folder_is_made(store, tmp_path, config):
    for changes, message in (
        ({"encoder": EncoderSpec(name="vit1d", config={"depth": 1})}, "network without BatchNorm, expected one"),
        ({"compute": ComputeSpec(batch_norm="per_cohort", compile=True)}, "compile=true with compute.batch_norm"),
    ):
        with pytest.raises(SpecError, match=message):
            run(store, tmp_path / "run", config, **{"compute": PER_COHORT} | changes)
    assert not (tmp_path / "run").exists()


def test_several_processes_need_no_gpu_for_it():
    layers = nn.Sequential(nn.BatchNorm1d(3))
    device._share_norms(layers, PER_COHORT, torch.device("cpu"), 2)
    assert type(layers[0]) is nn.BatchNorm1d
