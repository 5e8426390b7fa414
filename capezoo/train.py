"""The pretraining loop: a store and a RunConfig in, a run folder out.

Killed at any step and called again, it ends with the same weights on a CPU. There are no generator states to save:
every draw is keyed by the run's seed, what it is for, and the step.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from math import cos, isfinite, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from capezoo import checkpoint, encoders, monitor, objectives, views
from capezoo.data import TrainingData, prepare
from capezoo.errors import TrainingDiverged
from capezoo.objectives import ViewBatch
from capezoo.progress import bar
from capezoo.run_folder import MetricsFile, RunFolder
from capezoo.specs import OptimiserSpec, RunConfig, derive_seed
from ecgcohorts.errors import SourceError, StateMismatch

if TYPE_CHECKING:
    from ecgcohorts import Batch
    from ecgcohorts.store import AnyStore

RUNNING_DECAY = 0.9  # of the running loss per cohort in metrics.csv; our default


@dataclass(frozen=True)
class Report:
    """What a progress callback is told after every step."""

    step: int  # steps done
    total_steps: int
    loss: float
    lr: float
    ecg_per_s: float
    held_out: monitor.HeldOut | None = None  # if it was measured after this step


class Trainee(nn.Module):
    """Encoder and objective as one module, so that wrappers see every parameter."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.encoder = encoders.build(config.encoder, derive_seed(config.seed, "encoder"))
        dim = int(self.encoder.num_features)  # type: ignore[arg-type]
        self.objective = objectives.build(config.objective, dim, derive_seed(config.seed, "objective"))

    def forward(self, signal: Tensor) -> Tensor:
        """float32 (pair, view, lead, time) in mV -> loss."""
        loss: Tensor = self.objective(self.encoder, ViewBatch(signal))
        return loss


@dataclass
class Clock:
    """Seconds and ECGs since the last line of metrics.csv."""

    waited_s: float = 0.0
    spent_s: float = 0.0
    ecgs: int = 0

    @property
    def ecg_per_s(self) -> float:
        return self.ecgs / self.spent_s if self.spent_s else 0.0

    @property
    def wait_share(self) -> float:
        return self.waited_s / self.spent_s if self.spent_s else 0.0


@dataclass
class State:
    """What changes from step to step, apart from weights and optimiser."""

    step: int = 0
    running: dict[str, float] = field(default_factory=dict)  # cohort -> decayed mean of its batches' loss
    clock: Clock = field(default_factory=Clock)


def pretrain(
    store: "AnyStore",
    config: RunConfig,
    out: Path,
    *,
    resume: bool = True,
    progress: Callable[[Report], None] | None = None,
) -> Path:
    """Pretrain as `config` says and return the run folder `out`. A run already there is continued, or found done.

    progress: called after every step; by default a bar is drawn if standard error is a terminal.
    Raises RecipeMismatch if the store does not serve what config.input asks for, PlanImpossible if its patients do
    not fill a batch, StateMismatch if `out` holds another run, TrainingDiverged at the first loss that is no number.
    """
    config.input.require_recipe(store.recipe)
    fabric = _fabric(config)
    folder = RunFolder(Path(out))
    data = prepare(store, config, fabric.global_rank, fabric.world_size)
    if fabric.global_rank == 0:
        folder.begin(config, data.summary(), data.digests(), resume)
    fabric.barrier()
    trainee = Trainee(config)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        trainee = nn.SyncBatchNorm.convert_sync_batchnorm(trainee)  # one batch, one set of statistics
    optimiser = torch.optim.Adam(
        trainee.parameters(),
        lr=config.optimiser.lr,
        betas=config.optimiser.betas,
        eps=config.optimiser.eps,
        weight_decay=config.optimiser.weight_decay,
    )
    model, wrapped = fabric.setup(trainee, optimiser)
    run = Run(config, fabric, folder, data, trainee, model, wrapped)
    state = _restore(run)
    if state.step < data.total_steps:
        with closing(data.batches()) as batches, nullcontext(progress) if progress else _bar(run, state.step) as tell:
            try:
                _loop(run, state, batches, tell)  # closing the batches ends the loader's threads
            except TrainingDiverged as error:
                _status(run, state.step, "diverged", reason=str(error))
                raise
    return folder.path


@dataclass(frozen=True, eq=False)
class Run:
    """The fixed parts of a run."""

    config: RunConfig
    fabric: Fabric
    folder: RunFolder
    data: TrainingData
    trainee: Trainee
    model: nn.Module  # trainee as Fabric wraps it: same parameters
    optimiser: torch.optim.Optimizer


def trained(folder: Path) -> tuple[nn.Module, RunConfig, dict[str, Any]]:
    """Return the encoder of a run's newest checkpoint in evaluation mode, its config, and the checkpoint.

    Raises SourceError if `folder` is no run, or has no checkpoint yet.
    """
    config = RunFolder(Path(folder)).config()
    state, _ = checkpoint.latest(RunFolder(Path(folder)).checkpoints)
    if state is None:
        raise SourceError(f"{folder}: found no checkpoint, expected one. Let the run reach its first, or resume it.")
    encoder = encoders.build(config.encoder, seed=0)
    encoder.load_state_dict(state["encoder"])
    return encoder.eval(), config, state


def _loop(run: Run, state: State, batches: Iterator["Batch"], tell: Callable[[Report], None]) -> None:
    config, total = run.config, run.data.total_steps
    metrics = None
    if run.fabric.global_rank == 0:
        metrics = MetricsFile(run.folder.metrics, _columns(run.data.cohorts), state.step)
    _status(run, state.step, "running")
    run.model.train()
    while state.step < total:
        asked = time.perf_counter()
        batch = next(batches)
        waited_s = time.perf_counter() - asked
        lr = half_cosine(state.step, total, config.optimiser)
        loss, grad_norm = _step(run, state.step, lr, batch)
        state.step += 1
        _account(state, batch.plan.cohort, loss, waited_s, time.perf_counter() - asked, 2 * config.sampler.pairs)
        report = Report(state.step, total, loss, lr, state.clock.ecg_per_s)
        if _due(config.held_out.every_steps, report):
            held_out = monitor.measure(run.trainee.encoder, run.trainee.objective, _held_out_batches(run))
            report = replace(report, held_out=held_out)
        if metrics and (report.held_out or _due(config.log_every, report)):
            metrics.append(_row(run, state, report) | {"grad_norm": grad_norm, "cohort": batch.plan.cohort})
            state.clock = Clock()
        if _due(config.checkpoint_every, report):
            _save(run, state)
            _status(
                run, state.step, "done" if state.step == total else "running", loss=loss, ecg_per_s=report.ecg_per_s
            )
        tell(report)


def _due(every: int, report: Report) -> bool:
    """Every so many steps, and at the end."""
    return report.step % every == 0 or report.step == report.total_steps


def _step(run: Run, step: int, lr: float, batch: "Batch") -> tuple[float, float]:
    """One optimiser step. Returns the mean loss over all ranks and the norm of its gradient."""
    for group in run.optimiser.param_groups:
        group["lr"] = lr
    with _seeded(derive_seed(run.config.seed, "forward", step, run.fabric.global_rank), run.fabric.device):
        loss = run.model(_perturbed(run, batch, "views", step))
    run.fabric.backward(loss)
    gradients = [p.grad for p in run.trainee.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    mean_loss = cast(Tensor, run.fabric.all_reduce(loss.detach(), reduce_op="mean"))
    found, grad_norm = torch.stack([mean_loss.float(), norm.float()]).tolist()
    if not (isfinite(found) and isfinite(grad_norm)):
        rows = " ".join(str(row) for row in batch.plan.rows.ravel())
        raise TrainingDiverged(
            f"step {step}: found loss {found} and gradient norm {grad_norm} in a batch of cohort "
            f"{batch.plan.cohort or 'all'}, expected numbers. Lower the learning rate, or look at rows {rows}."
        )
    if run.config.optimiser.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(run.trainee.parameters(), run.config.optimiser.clip_norm, norm)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    if callable(after_step := getattr(run.trainee.objective, "after_step", None)):
        after_step(run.trainee.encoder)
    return found, grad_norm


def half_cosine(step: int, total: int, spec: OptimiserSpec) -> float:
    """Learning rate of step 0 .. total - 1: lr/2 (1 + cos(pi t/T)), after a linear rise over warmup_steps if any."""
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    share = (step - spec.warmup_steps) / (total - spec.warmup_steps)
    return spec.lr / 2 * (1 + cos(pi * share))


def _perturbed(run: Run, batch: "Batch", use: str, number: int) -> Tensor:
    """int16 as loaded -> float32 (pair, view, lead, time) in mV on the device, views perturbed."""
    signal_mv = views.to_mv(torch.from_numpy(batch.signal).to(run.fabric.device), batch.lsb_uv)
    pairs, n_views, _, length = signal_mv.shape
    world = run.fabric.world_size
    generator = torch.Generator().manual_seed(derive_seed(run.config.seed, use, number))
    drawn = views.draw(run.config.views, (pairs * world, n_views), length, generator)
    return views.apply(signal_mv, drawn.part(run.fabric.global_rank, world))


def _held_out_batches(run: Run) -> Iterator[monitor.ViewedBatch]:
    for number, (cohort, batch) in enumerate(run.data.held_out_batches()):
        yield monitor.ViewedBatch(cohort, _perturbed(run, batch, "held_out", number))


def _fabric(config: RunConfig) -> Fabric:
    """One process, or those that torchrun started; the GPU if there is one."""
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    fabric = Fabric(accelerator="auto", devices=local, num_nodes=world // local, precision=config.precision)
    fabric.launch()
    return fabric


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global generators start from `seed` inside, for layers such as dropout that know no other, and go back after."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


def _account(state: State, cohort: str | None, loss: float, waited_s: float, spent_s: float, ecgs: int) -> None:
    clock = state.clock
    clock.waited_s, clock.spent_s, clock.ecgs = clock.waited_s + waited_s, clock.spent_s + spent_s, clock.ecgs + ecgs
    if cohort is not None:
        state.running[cohort] = RUNNING_DECAY * state.running.get(cohort, loss) + (1 - RUNNING_DECAY) * loss


def _restore(run: Run) -> State:
    """Load the newest good checkpoint into the run. Raises StateMismatch if it belongs to another one."""
    saved, refused = checkpoint.latest(run.folder.checkpoints)
    for problem in refused:
        logging.getLogger(__name__).warning("%s", problem)
    if saved is None:
        return State()
    for name, mine in (("config", run.config.fingerprint), ("store", run.data.store.fingerprint)):
        if saved[f"{name}_fingerprint"] != mine:
            raise StateMismatch(f"{run.folder.path}: found checkpoints of another {name}. Give another folder.")
    run.trainee.encoder.load_state_dict(saved["encoder"])
    run.trainee.objective.load_state_dict(saved["objective"])
    run.optimiser.load_state_dict(saved["optimiser"])
    run.data.sampler.load_state_dict(saved["sampler"])
    return State(step=saved["step"], running=dict(saved["running"]))


@contextmanager
def _bar(run: Run, step: int) -> Iterator[Callable[[Report], None]]:
    with bar(f"pretrain {run.config.name}", run.data.total_steps, step) as show:
        yield lambda report: show(report.step, f"loss {report.loss:.3f}  {report.ecg_per_s:.0f} ECG/s")


def _columns(cohorts: tuple[str, ...]) -> list[str]:
    fixed = ["step", "epoch", "lr", "loss", "grad_norm", "cohort", "val_loss", "val_bound", "alignment", "uniformity"]
    fixed += ["effective_rank", "dead_units", "ecg_per_s", "wait_share"]
    return fixed + [f"loss_{name}" for name in cohorts] + [f"val_loss_{name}" for name in cohorts]


def _row(run: Run, state: State, report: Report) -> dict[str, Any]:
    row: dict[str, Any] = {"step": report.step, "epoch": (report.step - 1) // run.data.steps_per_epoch}
    row |= {"lr": report.lr, "loss": report.loss}
    row |= {"ecg_per_s": state.clock.ecg_per_s, "wait_share": state.clock.wait_share}
    row |= {f"loss_{cohort}": loss for cohort, loss in state.running.items()}
    if now := report.held_out:
        row |= {"val_loss": now.loss, "val_bound": now.bound, "alignment": now.alignment}
        row |= {"uniformity": now.uniformity, "effective_rank": now.effective_rank, "dead_units": now.dead_units}
        row |= {f"val_loss_{cohort}": loss for cohort, loss in now.loss_per_cohort.items()}
    return row


def _save(run: Run, state: State) -> None:
    """Checkpoint, by rank 0; the others wait."""
    if run.fabric.global_rank == 0:
        content = {
            "encoder": run.trainee.encoder.state_dict(),
            "objective": run.trainee.objective.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "sampler": run.data.sampler.state_dict(),
            "running": state.running,
            "config": run.config.model_dump_json(),
            "config_fingerprint": run.config.fingerprint,
            "store_fingerprint": run.data.store.fingerprint,
        }
        checkpoint.save(run.folder.checkpoints, state.step, content, run.config.keep_checkpoints)
    run.fabric.barrier()


def _status(run: Run, step: int, now: str, **more: Any) -> None:
    """status.json: at the start, with every checkpoint, and when the run ends, well or not."""
    if run.fabric.global_rank == 0:
        run.folder.status({"state": now, "step": step, "total_steps": run.data.total_steps, **more})
