"""What every objective keeps to, collected from the registry. Whole runs of each are in tests/capezoo/training/test_methods.py."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from capezoo import objectives
from capezoo.encoders._protocol import Stage, TokenEncoder
from capezoo.objectives._contract import Losses, Needs, Objective, ViewBatch, check
from capezoo.objectives._teacher import Teacher
from capezoo.specs import EncoderSpec, InputSpec, ObjectiveSpec, RunConfig, SamplerSpec
from capezoo.training import metrics
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

NAMES = plugins.names("capezoo.objectives")
GROUPS, DIM, LENGTH, TOKEN = 8, 6, 160, 4
# Where the defaults are large for `Least`. No dropout: it draws from the global generator, which only the trainer seeds.
SMALL: dict[str, dict[str, Any]] = {
    "data2vec": {"layers": 1, "dropout": 0.0},
    "dinosr": {"dropout": 0.0},
    "hubert_sinkhorn": {"prototypes": [16, 32]},
    "jepa": {"shortest": 8, "dropout": 0.0},
    "wav2vec2": {"span": 4, "negatives": 20, "dropout": 0.0},
    "wav2vec2_cmsc": {"span": 4, "negatives": 20, "dropout": 0.0},
    "jepa_vit": {"width": 32, "heads": 2},
    "mae": {"width": 32, "depth": 1, "heads": 2},
}


class Least(TokenEncoder):
    """The least causal encoder: linear tokens, and their running mean. No norm, so ranks do not need to share one."""

    token_dim, causal, can_drop = DIM, True, True
    config = SimpleNamespace(in_leads=8)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(DIM, 8, generator=generator, dtype=torch.float64))
        self.complete([Stage(DIM, TOKEN, "classifier")], 0)

    def tokens(self, x: Tensor) -> Tensor:
        return torch.einsum("dl,bltn->btd", self.weight, x.unflatten(-1, (-1, TOKEN))) / TOKEN

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, DIM))
        count = torch.arange(1, tokens.shape[1] + 1, dtype=tokens.dtype)
        return [torch.tanh(tokens).cumsum(1) / count[:, None]]

    def forward_features(self, x: Tensor) -> Tensor:
        return self.outputs(x, 1)[-1]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {}


def made(name: str, encoder: nn.Module | None = None, seed: int = 1) -> Objective:
    return objectives.build(ObjectiveSpec(name=name, config=SMALL.get(name, {})), encoder or Least(), seed)


def batch_of(views: int, noise: float = 0.5, group: Tensor | None = None) -> ViewBatch:
    """Views of a patient resemble each other, and each has a rhythm, so that there is something to predict."""
    generator = torch.Generator().manual_seed(3)
    shape = (GROUPS, 1, 8, 1)
    size, phase = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    wave = size * torch.sin(torch.arange(LENGTH) / 9 + 6 * phase)
    signal = wave + noise * torch.randn(GROUPS, views, 8, LENGTH, generator=generator, dtype=torch.float64)
    group = torch.arange(GROUPS) if group is None else group
    valid = torch.full((GROUPS, views), LENGTH)
    return ViewBatch(signal, valid, group, "a", 0, 100, torch.Generator().manual_seed(4))


def setting(name: str) -> tuple[nn.Module, Objective, ViewBatch]:
    """Encoder, objective and batch in float64."""
    encoder = Least()
    objective = made(name, encoder).double()
    return encoder, objective, batch_of(objective.needs.views)


def fresh(batch: ViewBatch) -> ViewBatch:
    """The same with the generator at its start."""
    return replace(batch, generator=torch.Generator().manual_seed(4))


def trained_ones(*modules: nn.Module) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def test_there_are_objectives() -> None:
    hidden = {"data2vec", "dinosr", "hubert_sinkhorn", "jepa", "jepa_vit", "mae", "wav2vec2", "wav2vec2_cmsc"}
    assert {"byol", "cmsc", "cpc", "info_nce", "simclr"} | hidden <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_config_goes_to_json_and_back(name: str) -> None:
    module = plugins.load("capezoo.objectives", name)
    assert module.Config.model_validate_json(module.Config().model_dump_json()) == module.Config()
    assert isinstance(module.Objective.needs, Needs)
    for key, field in module.Config.model_fields.items():
        assert field.description, f"{name}.Config.{key} does not say where its default comes from"
    with pytest.raises(SpecError, match="unknown key 'nonsense'"):
        objectives.build(ObjectiveSpec(name=name, config={"nonsense": 1}), Least(), seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_named_and_gradients_reach_all_but_teachers(name: str) -> None:
    encoder, objective, batch = setting(name)
    losses = objective(encoder, batch)
    assert isinstance(losses, Losses)
    assert losses.total.shape == ()
    assert torch.isfinite(losses.total)
    assert tuple(losses.terms) == objective.terms
    assert len(set(metrics.columns(["a"], objective.terms))) == len(metrics.columns(["a"], objective.terms))
    assert all(torch.isfinite(term) and not term.requires_grad for term in losses.terms.values())
    losses.total.backward()
    assert all(p.grad is not None for p in trained_ones(encoder, objective))
    assert all(p.grad.abs().sum() > 0 for p in trained_ones(encoder))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_draws_give_the_same_loss_and_order_does_not_matter_without(name: str) -> None:
    encoder, objective, batch = setting(name)
    before = torch.get_rng_state()
    first, again = (objective(encoder, fresh(batch)).total for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
    used, start = fresh(batch), fresh(batch).generator.get_state()
    objective(encoder, used)
    if torch.equal(used.generator.get_state(), start):  # a method that draws draws for the first row first
        order = torch.randperm(GROUPS, generator=torch.Generator().manual_seed(0))
        shuffled = replace(batch, signal=batch.signal[order], group=batch.group[order])
        torch.testing.assert_close(objective(encoder, shuffled).total, first)


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_from_the_seed_and_touch_no_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    first, again = (made(name, seed=4) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_network_has_the_loss_that_is_said(name: str) -> None:
    """Windows that hardly differ: an untrained network tells them apart no better than chance."""
    encoder, objective, _ = setting(name)
    batch = batch_of(objective.needs.views, noise=0.0)
    alike = replace(batch, signal=0.01 * batch.signal + 1)
    said = objective.untrained(GROUPS, LENGTH // TOKEN)
    if said is not None:
        assert objective(encoder, alike).total.item() == pytest.approx(said, rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_in_thirty_steps(name: str) -> None:
    encoder, objective, batch = setting(name)
    optimiser = torch.optim.Adam(trained_ones(encoder, objective), lr=0.01)
    losses = []
    for step in range(30):
        loss = objective(encoder, replace(fresh(batch), step=step)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step(encoder, step, 100)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_starts_as_the_student_follows_it_and_learns_nothing_by_itself(name: str) -> None:
    encoder, objective, batch = setting(name)
    teachers = [module for module in objective.modules() if isinstance(module, Teacher)]
    before = [[p.clone() for p in teacher.parameters()] for teacher in teachers]
    for teacher in teachers:
        copied = [
            p for p in teacher.parameters() if any(p.shape == q.shape and p.equal(q) for q in encoder.parameters())
        ]
        assert len(copied) >= len(list(encoder.parameters()))
    objective.train()
    assert not any(module.training for teacher in teachers for module in teacher.modules())
    optimiser = torch.optim.SGD(trained_ones(encoder, objective), lr=0.5)
    objective(encoder, batch).total.backward()
    optimiser.step()
    assert all(p.grad is None for teacher in teachers for p in teacher.parameters())
    assert all(torch.equal(p, q) for teacher, kept in zip(teachers, before, strict=True)
               for p, q in zip(teacher.parameters(), kept, strict=True))  # fmt: skip
    objective.after_step(encoder, 0, 100)
    for teacher, kept in zip(teachers, before, strict=True):
        assert any(not torch.equal(p, q) for p, q in zip(teacher.parameters(), kept, strict=True))
    again = made(name, Least(), seed=9).double()  # a checkpoint holds all of it
    again.load_state_dict(objective.state_dict())
    assert torch.equal(objective(encoder, fresh(batch)).total, again(encoder, fresh(batch)).total)


class Plain(nn.Module):
    """An encoder without tokens."""

    num_features = DIM


def config_for(name: str, **sampler: Any) -> RunConfig:
    needs = plugins.load("capezoo.objectives", name).Objective.needs
    wanted = {"views": needs.views, "pairing": needs.pairing[0]} | sampler
    spec = SamplerSpec(**({"groups": GROUPS} | wanted))
    objective, window = ObjectiveSpec(name=name), InputSpec(length=LENGTH)
    return RunConfig(
        name="x", seed=0, objective=objective, sampler=spec, input=window, encoder=EncoderSpec(name="vit1d")
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_gives_too_little_is_refused_and_both_sides_named(name: str) -> None:
    objective, needs = made(name), plugins.load("capezoo.objectives", name).Objective.needs
    least = Least().float()
    assert check(objective, least, config_for(name)) == LENGTH // TOKEN
    with pytest.raises(
        SpecError, match=rf"objective {name} needs {needs.views} views, sampler in_distribution gives 3"
    ):
        check(objective, least, config_for(name, views=3, pairing="record"))
    if needs.tokens:
        with pytest.raises(SpecError, match=f"objective {name} needs tokens, encoder vit1d has none"):
            check(objective, Plain(), config_for(name))
        short = config_for(name).model_copy(update={"input": InputSpec(length=TOKEN * (objective.least_tokens() - 1))})
        with pytest.raises(SpecError, match=f"objective {name} needs {objective.least_tokens()} tokens or more"):
            check(objective, least, short)
    else:
        assert check(objective, Plain(), config_for(name)) == 0


class Demanding(Objective):
    """Asks for several things at once."""

    needs = Needs(views=2, pairing=("adjacent",), drops_tokens=True)


def test_every_ability_is_asked_for_by_name() -> None:
    objective, config = Demanding(), config_for("info_nce")
    with pytest.raises(
        SpecError, match=r"needs views paired by adjacent, sampler in_distribution pairs by patient\. Set"
    ):
        check(objective, Least().float(), config)
    config = config_for("info_nce", pairing="adjacent")
    least = Least().float()
    least.can_drop = False
    with pytest.raises(SpecError, match="needs an encoder that can drop tokens, encoder vit1d cannot"):
        check(objective, least, config)
    objective.needs = Needs(views=2, causal=False)
    with pytest.raises(SpecError, match="needs an encoder that is not causal, encoder vit1d is causal"):
        check(objective, Least().float(), config)


def parallel_gradient(rank_text: str, world_size_text: str, name: str, folder: str) -> None:
    """One rank, in a process of its own: its contiguous share of the batch, gradients averaged over ranks as DDP does."""
    rank, world_size = int(rank_text), int(world_size_text)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    encoder, objective, batch = setting(name)
    share = GROUPS // world_size
    mine = slice(rank * share, (rank + 1) * share)
    loss = objective(encoder, replace(batch, signal=batch.signal[mine], group=GROUP[mine])).total
    loss.backward()
    for parameter in trained_ones(encoder, objective):
        assert parameter.grad is not None
        distributed.all_reduce(parameter.grad)
        parameter.grad /= world_size
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    if rank == 0:
        gradients = [parameter.grad for parameter in trained_ones(encoder, objective)]
        torch.save({"loss": mean / world_size, "gradients": gradients}, f"{folder}/found.pt")
    distributed.destroy_process_group()


GROUP = torch.tensor([0, 1, 2, 3, 4, 0, 6, 7])  # two rows of one patient, on different ranks
AS_ONE = [name for name in NAMES if plugins.load("capezoo.objectives", name).Objective.ranks_as_one]


@pytest.mark.parametrize("world_size", [2])
@pytest.mark.parametrize("name", AS_ONE)
def test_gradient_is_the_same_on_one_process_and_on_two(name: str, world_size: int, tmp_path: Path) -> None:
    code = "import runpy, sys; run = runpy.run_path(sys.argv[1]); run['parallel_gradient'](*sys.argv[2:])"
    ranks = [
        subprocess.Popen([sys.executable, "-c", code, __file__, str(rank), str(world_size), name, str(tmp_path)])
        for rank in range(world_size)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0] * world_size
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    encoder, objective, batch = setting(name)
    loss = objective(encoder, replace(batch, group=GROUP)).total
    loss.backward()
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-10, atol=0)
    expected = [parameter.grad for parameter in trained_ones(encoder, objective)]
    for mine, theirs in zip(found["gradients"], expected, strict=True):
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
