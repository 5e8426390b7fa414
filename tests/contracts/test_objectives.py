"""What every objective keeps to, collected from the registry."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from capezoo import objectives
from capezoo.objectives import Needs, ViewBatch
from capezoo.specs import ObjectiveSpec
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

NAMES = plugins.names("capezoo.objectives")
PAIRS, DIM, LENGTH = 8, 6, 40


class Linear(nn.Module):
    """The least encoder: mean over time of a linear map of the leads. No norm, so ranks do not need to share one."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(DIM, 8, generator=generator, dtype=torch.float64))
        self.num_features = DIM

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.einsum("dl,blt->bdt", self.weight, x)).mean(-1)


def setting(name: str) -> tuple[nn.Module, nn.Module, ViewBatch]:
    """Encoder, objective and batch in float64; views of a patient resemble each other."""
    objective = objectives.build(ObjectiveSpec(name=name), DIM, seed=1).double()
    generator = torch.Generator().manual_seed(3)
    patient = torch.randn(PAIRS, 1, 8, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(PAIRS, objective.needs.views, 8, LENGTH, generator=generator, dtype=torch.float64)
    return Linear(), objective, ViewBatch(patient + 0.5 * noise)


def test_there_are_objectives() -> None:
    assert "info_nce" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_config_goes_to_json_and_back(name: str) -> None:
    module = plugins.load("capezoo.objectives", name)
    assert module.Config.model_validate_json(module.Config().model_dump_json()) == module.Config()
    assert isinstance(module.Objective.needs, Needs)
    for key, field in module.Config.model_fields.items():
        assert field.description, f"{name}.Config.{key} does not say where its default comes from"
    with pytest.raises(SpecError, match="unknown key 'nonsense'"):
        objectives.build(ObjectiveSpec(name=name, config={"nonsense": 1}), DIM, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_finite_and_gradients_reach_encoder_and_objective(name: str) -> None:
    encoder, objective, batch = setting(name)
    loss = objective(encoder, batch)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    for parameter in [*encoder.parameters(), *objective.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_order_of_patients_does_not_matter(name: str) -> None:
    encoder, objective, batch = setting(name)
    order = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(objective(encoder, ViewBatch(batch.signal[order])), objective(encoder, batch))


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_from_the_seed_and_touch_no_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    first, again = (objectives.build(ObjectiveSpec(name=name), DIM, seed=4) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_in_a_short_run(name: str) -> None:
    encoder, objective, batch = setting(name)
    optimiser = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=0.02)
    losses = []
    for _ in range(60):
        loss = objective(encoder, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def parallel_gradient(rank_text: str, world_size_text: str, name: str, folder: str) -> None:
    """One rank, in a process of its own: its contiguous share of the batch, gradients averaged over ranks as DDP does."""
    rank, world_size = int(rank_text), int(world_size_text)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    encoder, objective, batch = setting(name)
    share = PAIRS // world_size
    modules = nn.ModuleList([encoder, objective])
    loss = objective(encoder, ViewBatch(batch.signal[rank * share : (rank + 1) * share]))
    loss.backward()
    for parameter in modules.parameters():
        assert parameter.grad is not None
        distributed.all_reduce(parameter.grad)
        parameter.grad /= world_size
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    if rank == 0:
        gradients = [parameter.grad for parameter in modules.parameters()]
        torch.save({"loss": mean / world_size, "gradients": gradients}, f"{folder}/found.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_same_on_one_process_and_on_two(name: str, world_size: int, tmp_path: Path) -> None:
    code = "import runpy, sys; run = runpy.run_path(sys.argv[1]); run['parallel_gradient'](*sys.argv[2:])"
    ranks = [
        subprocess.Popen([sys.executable, "-c", code, __file__, str(rank), str(world_size), name, str(tmp_path)])
        for rank in range(world_size)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0] * world_size
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    encoder, objective, batch = setting(name)
    loss = objective(encoder, batch)
    loss.backward()
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-10, atol=0)
    expected = [parameter.grad for parameter in nn.ModuleList([encoder, objective]).parameters()]
    for mine, theirs in zip(found["gradients"], expected, strict=True):
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
