"""BYOL: closed forms of its loss, the published size of its heads, and a teacher that stays one."""

import copy
from math import cos, pi

import pytest
import torch
from torch import nn

from capezoo.objectives import byol
from capezoo.objectives._contract import ViewBatch
from capezoo.objectives._schedules import half_cosine
from capezoo.objectives._teacher import Teacher


class Net(nn.Module):
    """A linear map with a BatchNorm and dropout, whose modes and buffers matter."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(20, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def made(**config: object) -> tuple[Net, byol.Objective]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
        return net, byol.Objective(byol.Config(hidden=16, projection=8, **config), net)


def batch(rows: int = 5) -> ViewBatch:
    signal = torch.randn(rows, 2, 4, 5, generator=torch.Generator().manual_seed(1))
    return ViewBatch(signal, torch.ones(rows, 2), torch.arange(rows), None, 0, 10, torch.Generator())


def test_distance_at_its_extremes() -> None:
    a = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    assert byol._distance(a, 3 * a).item() == pytest.approx(0, abs=1e-6)
    assert byol._distance(a, -a).item() == pytest.approx(4, abs=1e-6)
    assert byol._distance(torch.eye(4), torch.eye(4).roll(1, 0)).item() == 2
    unit = [one / one.norm(dim=1, keepdim=True) for one in (a, a.roll(1, 0))]
    assert byol._distance(a, a.roll(1, 0)).item() == pytest.approx((unit[0] - unit[1]).square().sum(1).mean().item())


def test_distance_is_float32_inside_autocast() -> None:
    a = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    b = (a + 0.02 * torch.randn(64, 256, generator=torch.Generator().manual_seed(1))).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = byol._distance(a, b)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(byol._distance(a.double(), b.double()).item(), rel=1e-3)


def test_loss_is_the_mean_of_both_directions_and_half_of_lightlys_sum() -> None:
    loss = pytest.importorskip("lightly.loss").NegativeCosineSimilarity()
    net, objective = made()
    net.eval(), objective.eval()
    given = batch()
    first, second = given.signal.unbind(1)
    online = [objective.predictor(objective.projector(net(view))) for view in (first, second)]
    target = [objective.projector(net(view)).detach() for view in (first, second)]  # the teacher is a copy still
    theirs = 2 + loss(online[0], target[1]) + loss(online[1], target[0])  # 2 - cos - cos
    torch.testing.assert_close(objective(net, given).total, theirs)


def test_heads_have_the_published_parameters() -> None:
    class Wide(nn.Module):
        num_features = 2048

    objective = byol.Objective(byol.Config(), Wide())
    assert sum(p.numel() for p in objective.projector.parameters()) == 9_449_728
    assert sum(p.numel() for p in objective.predictor.parameters()) == 2_109_696


def test_teacher_moves_by_the_published_momentum_and_its_buffers_are_the_students() -> None:
    net, objective = made(momentum=0.9)
    start = {name: value.clone() for name, value in objective.teacher.network.state_dict().items()}
    objective(net, batch()).total.backward()  # moves the student's running statistics
    with torch.no_grad():
        for parameter in [*net.parameters(), *objective.projector.parameters()]:
            parameter += 1
    objective.after_step(net, 3, 10)
    tau = 1 - (1 - 0.9) * (cos(pi * 3 / 10) + 1) / 2
    student = nn.Sequential(net, objective.projector)
    for name, value in objective.teacher.network.named_parameters():
        expected = tau * start[name] + (1 - tau) * student.get_parameter(name)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    buffers = dict(student.named_buffers())
    assert any(not torch.equal(buffers[name], start[name]) for name in buffers)
    assert all(torch.equal(value, buffers[name]) for name, value in objective.teacher.network.named_buffers())
    assert half_cosine(0.996, 1.0, 0, 10) == pytest.approx(0.996)
    assert half_cosine(0.996, 1.0, 10, 10) == pytest.approx(1.0)


def test_teacher_stays_in_evaluation_mode_unless_told_otherwise() -> None:
    net = Net()
    running, as_student = Teacher(net), Teacher(net, "as_student")
    for teacher in (running, as_student):
        teacher.train()
    assert not any(module.training for module in running.modules())
    assert all(module.training for module in as_student.modules())
    assert not any(module.training for module in as_student.eval().modules())
    assert net.training
    x = torch.randn(3, 20)
    assert torch.equal(running(x), running(x))
    assert not running(x).requires_grad
    assert made(teacher_norms="as_student")[1].train().teacher.network.training


def test_a_teacher_is_a_copy_and_not_the_student() -> None:
    net = Net()
    teacher = Teacher(net)
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        net.layers[1].weight.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
