"""The optimiser of a run. What changes from step to step is a function of the step: no scheduler has a state to lose."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from capezoo.objectives import half_cosine
from capezoo.specs.run import OptimiserSpec


@dataclass(frozen=True)
class _Kind:
    """What the parameters of one group have in common."""

    rate_factor: float
    decays: bool


class Optimiser:
    """A torch optimiser, its parameter groups, and the numbers each of them has at a step.

    The kinds of the groups are kept here and not in the groups, so that a saved state is torch's own and no more.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], spec: OptimiserSpec, device: torch.device) -> None:
        """Parameters without gradient, those of a teacher, are left out."""
        self.spec = spec
        members: dict[_Kind, list[nn.Parameter]] = {}
        for name, parameter in named:
            # Without factors and exceptions there is one group in the order of the module, as in states saved before.
            if parameter.requires_grad:
                decays = parameter.ndim > 1 or not spec.decay_only_matrices
                members.setdefault(_Kind(_factor(name, spec.rate_factors), decays), []).append(parameter)
        self.kinds = tuple(members)
        groups: list[dict[str, Any]] = [{"params": parameters} for parameters in members.values()]
        self.torch = build(groups, spec, device)

    def at_step(self, groups: Sequence[dict[str, Any]], step: int, total: int) -> float:
        """Set the numbers of step 0 .. total - 1, and return the learning rate before factors."""
        lr, decay = self.rate(step, total), self.decay(step, total)
        for group, kind in zip(groups, self.kinds, strict=True):
            group["lr"] = lr * kind.rate_factor
            group["weight_decay"] = decay if kind.decays else 0.0
            if self.spec.kind != "lars":
                group["eps"] = _epsilon(self.spec, step)
        return lr

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step: a linear rise over warmup_steps, then constant or half a cosine."""
        spec = self.spec
        if step < spec.warmup_steps:
            return spec.lr * (step + 1) / spec.warmup_steps
        if spec.schedule == "constant":
            return spec.lr
        return half_cosine(spec.lr, spec.final_lr, step - spec.warmup_steps, total - spec.warmup_steps)

    def decay(self, step: int, total: int) -> float:
        """Return the weight decay of a step: constant, or half a cosine over the whole run."""
        if self.spec.final_weight_decay is None:
            return self.spec.weight_decay
        return half_cosine(self.spec.weight_decay, self.spec.final_weight_decay, step, total)


def build(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], spec: OptimiserSpec, device: torch.device
) -> torch.optim.Optimizer:
    """Return a torch optimiser of parameters, or of groups of them, with the numbers of its first step."""
    if spec.kind == "lars":
        return _Lars(parameters, spec.lr, spec.momentum, spec.trust, spec.weight_decay)
    adam = torch.optim.AdamW if spec.kind == "adamw" else torch.optim.Adam
    # One kernel updates all parameters on a GPU.
    return adam(parameters, lr=spec.lr, betas=spec.betas, eps=_epsilon(spec, 0), weight_decay=spec.weight_decay,
                fused=True if device.type == "cuda" else None)  # fmt: skip


def _for_this_device(saved: dict[str, Any], groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a saved state with the kernels of this device: the one that saved it may have been a GPU, or none."""
    kernels = ("fused", "foreach", "capturable")
    own = [{name: group[name] for name in kernels if name in group} for group in groups]
    # Before torch loads it: whether the count of steps moves to the device depends on these.
    return {**saved, "param_groups": [{**one, **mine} for one, mine in zip(saved["param_groups"], own, strict=True)]}


def _epsilon(spec: OptimiserSpec, step: int) -> float:
    """Return the epsilon that makes torch's Adam that of the spec."""
    if spec.epsilon == "torch":
        return spec.eps
    # Keras: m / (sqrt(v) + eps) times sqrt(1 - beta2^t) / (1 - beta1^t). torch adds eps to sqrt(v / (1 - beta2^t)),
    # so the same eps must be larger there by 1 / sqrt(1 - beta2^t): 32 times at the first step.
    return spec.eps / sqrt(1 - spec.betas[1] ** (step + 1))


class _Lars(torch.optim.Optimizer):
    """Gradient descent with momentum, each parameter's step in proportion to its norm. Source: arXiv 1708.03888.

    As SimCLR and BYOL use it, parameters of one axis (norms, biases) take plain steps without trust and decay.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, trust: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    velocity = self.state[parameter].setdefault("velocity", torch.zeros_like(parameter))
                    # The rate enters the velocity, as in the paper: after a drop of the rate, old steps keep their length.
                    velocity.mul_(group["momentum"]).add_(_lars_direction(parameter, group), alpha=group["lr"])
                    parameter.sub_(velocity)


def _lars_direction(parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
    gradient: Tensor = parameter.grad  # type: ignore[assignment]
    # Norms and biases: their size says nothing about how far they should move.
    if parameter.ndim < 2:
        return gradient
    gradient = gradient.add(parameter, alpha=group["weight_decay"])
    sizes = parameter.norm(), gradient.norm()
    # A parameter or gradient of zero would stop for good, or move without bound.
    trust = torch.where((sizes[0] > 0) & (sizes[1] > 0), group["trust"] * sizes[0] / sizes[1], 1.0)
    return gradient * trust


def _factor(name: str, factors: dict[str, float]) -> float:
    """The factor of the longest beginning that fits; 1 if none does."""
    fitting = [prefix for prefix in factors if name.startswith(prefix)]
    # The longest prefix is the most particular: `encoder.stem` wins over `encoder`.
    return factors[max(fitting, key=len)] if fitting else 1.0
