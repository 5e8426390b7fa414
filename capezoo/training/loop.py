"""The pretraining loop: a store and a RunConfig in, a run folder out.

Killed at any step and called again, it ends with the same weights on a CPU. There are no generator states to save:
every draw is keyed by the run's seed, what it is for, and the step.
"""

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from capezoo import encoders, objectives
from capezoo.devices import _Arriving
from capezoo.errors import TrainingDiverged
from capezoo.objectives import ViewBatch, check
from capezoo.specs import RunConfig, derive_seed
from capezoo.training import checkpoint, curves, device, metrics, monitor, probes
from capezoo.training.data import TrainingData, fitted
from capezoo.training.device import Courier, Feed, _Loaded
from capezoo.training.monitor import HeldOut
from capezoo.training.norms import normalised_per_group
from capezoo.training.optimiser import Optimiser, _for_this_device
from capezoo.training.progress import Report, _Clock, bar
from capezoo.training.run_folder import RunFolder
from capezoo.training.watch import WAITING, Watch
from ecgcohorts.loading.loader import read_ahead

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

_Writer = metrics.MetricsFile | metrics.TensorBoard
RUNNING_DECAY = 0.9  # of the running loss per cohort in metrics.csv; our default
_ENDS = ("done", "collapsed")  # states of a run that has made all its steps
STATUS_S = 10.0  # seconds between two versions of status.json, which is flushed to disk; our default
CURVES_S = 600.0  # between two pictures of a run: one takes 1 to 3 s, in which nothing trains; our default


class _Trainee(nn.Module):
    """Encoder and objective as one module, so that wrappers see every parameter."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        # Seeds of their own, so that another objective leaves the initial encoder as it is.
        self.encoder = encoders.build(config.encoder, derive_seed(config.seed, "encoder"))
        self.objective = objectives.build(config.objective, self.encoder, derive_seed(config.seed, "objective"))
        # A mismatch must stop the run here and not at its first batch, when the folder is made.
        self.tokens = check(self.objective, self.encoder, config)

    def forward(self, **fields: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the losses of a ViewBatch, given field by field: wrappers look through arguments, not into objects."""
        losses = self.objective(self.encoder, ViewBatch(**fields))
        return losses.total, losses.terms


@dataclass
class _State:
    """What changes from step to step, apart from weights and optimiser."""

    step: int = 0
    running: dict[str, float] = field(default_factory=dict)  # cohort -> decayed mean of its batches' loss
    clock: _Clock = field(default_factory=_Clock)
    whole: _Clock = field(default_factory=_Clock)  # since this process began to train
    free_s: float = field(default_factory=time.perf_counter)  # when the last step was over, with what followed from it
    told_s: float = 0.0  # when status.json was written
    drawn_s: float = -inf  # when curves.png was
    held_out: dict[str, float] = field(default_factory=dict)  # last val_loss and val_untrained, for status.json
    told: dict[str, Any] = field(default_factory=dict)  # state and loss after this step, as status.json has them


def pretrain(
    store: "AnyStore",
    config: RunConfig,
    out: Path,
    *,
    resume: bool = True,
    progress: Callable[[Report], None] | None = None,
    stall_s: float = 600.0,
) -> Path:
    """Pretrain as `config` says and return the run folder `out`. A run already there is continued, or found done.

    progress: called after every step; by default a bar is drawn if standard error is a terminal. stall_s: of several
    processes, end this one if nothing moves for so many seconds, and name the one that stands still.
    Raises RecipeMismatch if the store does not serve what config.input asks for, PlanImpossible if its patients do
    not fill a batch, SpecError for a setting that is not possible here, StateMismatch if `out` holds another run,
    LockHeld if another process is writing there, TrainingDiverged at the first loss that is no number.
    """
    config = fitted(config, store.recipe)
    fabric = device.start(config.compute, stall_s)
    with device._computing(config.compute, fabric.device), ExitStack() as held:
        run = _set_up(store, config, RunFolder(Path(out)), fabric, resume, held)
        watch = Watch(run.folder.ranks, fabric.global_rank, fabric.world_size, stall_s, run.folder.stalled)
        state = _restore(run)
        if state.step < run.data.total_steps:
            name, shown = f"pretrain {config.name}", fabric.global_rank == 0
            with nullcontext(progress) if progress else bar(name, run.data.total_steps, state.step, shown) as tell:
                try:
                    with watch:
                        _loop(run, state, tell, watch)
                # Whatever ends it: a status that says "running" would keep somebody waiting.
                except BaseException as error:
                    # What another process wrote says more: this error may only follow from the end of that one.
                    if not (run.folder.has_status and run.folder.last_status()["state"] == "stalled"):
                        _status(run, state, _end_of(error), reason=str(error) or type(error).__name__)
                    raise
        # Killed between its last checkpoint and its last status. A checkpoint of an earlier version does not know the state.
        elif state.told and not (run.folder.has_status and run.folder.last_status()["state"] in _ENDS):
            _status(run, state, **state.told, ecg_per_s=0.0, wall_ecg_per_s=0.0, seconds_left=0)
    return run.folder.path


def _end_of(error: BaseException) -> str:
    """Name the state of a run that an error ended."""
    if isinstance(error, TrainingDiverged):
        return "diverged"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _described(fabric: Fabric) -> dict[str, Any]:
    """What a reader of results wants to know of the device; nothing that names the machine."""
    on_gpu = fabric.device.type == "cuda"
    name = torch.cuda.get_device_name(fabric.device) if on_gpu else "cpu"
    return {"device": name, "processes": fabric.world_size, "cuda": torch.version.cuda if on_gpu else None,
            "threads": torch.get_num_threads()}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Run:
    """The fixed parts of a run."""

    config: RunConfig
    fabric: Fabric
    folder: RunFolder
    data: TrainingData
    trainee: _Trainee
    model: nn.Module  # trainee as Fabric wraps it: same parameters
    rates: Optimiser  # what changes in the next from step to step
    optimiser: torch.optim.Optimizer  # as Fabric wraps it
    courier: Courier

    @property
    def windows(self) -> int:
        """Windows in a batch of all ranks."""
        return self.config.sampler.groups * self.config.sampler.views


def _set_up(
    store: "AnyStore", config: RunConfig, folder: RunFolder, fabric: Fabric, resume: bool, held: ExitStack
) -> _Run:
    """Whatever can be refused is refused before the folder is made. held: keeps the folder's lock until the run ends."""
    data = TrainingData.prepare(store, config, fabric.global_rank, fabric.world_size)
    trainee, courier = _Trainee(config), Courier(data, fabric)
    config.optimiser.require_fitting([name for name, p in trainee.named_parameters() if p.requires_grad])
    device._share_norms(trainee, config.compute, fabric.device, fabric.world_size)
    if fabric.global_rank == 0:
        held.enter_context(folder.writing(config, data.summary(), data.digests(), resume))
        folder.environment(_described(fabric))
    fabric.barrier()
    if config.compute.compile:
        trainee.encoder.compile(dynamic=False)  # in place: names of parameters stay
    trainee.to(fabric.device)  # before the optimiser, which asks where parameters are
    # A frozen teacher has no gradient and must not be decayed, so it never reaches the optimiser.
    rates = Optimiser(trainee.named_parameters(), config.optimiser, fabric.device)
    model, wrapped = fabric.setup(trainee, rates.torch)
    return _Run(config, fabric, folder, data, trainee, model, rates, wrapped, courier)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A step that the device may still be computing."""

    step: int
    loaded: _Loaded
    lr: float
    numbers: _Arriving
    waited_s: float  # for the loader


def _loop(run: _Run, state: _State, tell: Callable[[Report], None], watch: Watch) -> None:
    total = run.data.total_steps
    # A GPU is given its next step before the numbers of the last are read: it would stand idle for the 6 to 8 ms in
    # which a step is launched. On a CPU the step is over when it is begun.
    one_late = run.fabric.device.type == "cuda"
    with ExitStack() as stack:
        # Made in page-locked memory where there is a GPU to copy to.
        made = run.data.batches(run.courier.memory)
        batches = stack.enter_context(closing(made))  # closing ends the loader's threads
        feed = Feed(batches, run.courier, run.data.sampler.state_dict)
        writers = _writers(run, state.step, stack)
        _status(run, state, "running")
        run.model.train()
        state.clock, state.whole, state.free_s = _Clock(), _Clock(), time.perf_counter()
        unread: list[_Begun] = []
        for step in range(state.step, total):
            unread.append(_begin(run, step, feed, watch))
            # What is measured or saved after a step must have its weights, not those of the next.
            keeps_up = not one_late or _needs_weights(run, step + 1)
            while len(unread) > (0 if keeps_up else 1):
                _finish(run, state, unread.pop(0), writers, tell, watch)


def _begin(run: _Run, step: int, feed: Feed, watch: Watch) -> _Begun:
    """Begin a step and fetch the batch of the next; nothing here waits for the device."""
    waited_s = feed.waited_s
    watch.beat(step, "reading a batch")
    loaded = feed.take(step)
    watch.beat(step, WAITING)
    lr = run.rates.at_step(run.optimiser.param_groups, step, run.data.total_steps)
    numbers = _Arriving(_step(run, step, loaded), run.fabric.device)
    if step + 1 < run.data.total_steps:
        watch.beat(step, "reading a batch")
        feed.fetch(step + 1)
        watch.beat(step, WAITING)
    return _Begun(step, loaded, lr, numbers, feed.waited_s - waited_s)


def _needs_weights(run: _Run, step: int) -> bool:
    """Whether something is due after so many steps that needs the weights as they are then."""
    config = run.config
    due = (config.checkpoint_every, config.held_out.every_steps, config.probes.every_steps)
    return step == run.data.total_steps or any(step % every == 0 for every in due)


def _finish(
    run: _Run, state: _State, begun: _Begun, writers: Sequence[_Writer], tell: Callable[[Report], None], watch: Watch
) -> None:
    """Read the numbers of a step, and do what is due after it."""
    config, total = run.config, run.data.total_steps
    loss, grad_norm, *terms = _require_finite(begun.numbers, begun.step, begun.loaded)
    state.step = begun.step + 1
    _account(run, state, begun, loss)
    named = dict(zip(run.trainee.objective.terms, terms, strict=True))
    speeds = state.clock.ecg_per_s, state.whole.wall_ecg_per_s
    report = _measure(run, state, Report(state.step, total, loss, begun.lr, *speeds, named))
    if report.held_out or report.probed or _due(config.log_every, report):
        row = _row(run, state, report) | {"grad_norm": grad_norm, "cohort": begun.loaded.plan.cohort}
        for writer in writers:
            writer.append(row)
        state.clock = _Clock()
    watch.beat(state.step, "writing" if run.fabric.global_rank == 0 else WAITING)
    state.told = {"now": _state_after(report), "loss": loss}
    if _due(config.checkpoint_every, report):
        _save(run, state, begun.loaded.sampler)
    if _due(config.checkpoint_every, report) or time.monotonic() - state.told_s > STATUS_S:
        now = {"ecg_per_s": report.ecg_per_s, "wall_ecg_per_s": report.wall_ecg_per_s, **state.told}
        _status(run, state, seconds_left=_seconds_left(run, report), **now)
    tell(report)
    state.free_s = time.perf_counter()


def _state_after(report: Report) -> str:
    """Name the state of the run after this step."""
    if report.step < report.total_steps:
        return "running"
    # Its loss may be at the bound or below it, by the method; the features say it either way.
    done, collapsed = _ENDS
    return collapsed if report.held_out and report.held_out.collapsed else done


def _due(every: int, report: Report) -> bool:
    """Every so many steps, and at the end."""
    return report.step % every == 0 or report.step == report.total_steps


def _step(run: _Run, step: int, loaded: _Loaded) -> Tensor:
    """One optimiser step, begun. Returns loss, norm of its gradient, and terms, means over all ranks: float32 (2 + terms,).

    Nothing waits for the device. If the loss is no number the weights are spoilt, and never saved.
    """
    objective, total_steps = run.trainee.objective, run.data.total_steps
    # The backward pass too: blocks that are recomputed there must see the same groups.
    with normalised_per_group(run.trainee, run.data.parts(loaded.plan)):
        with device.seeded(derive_seed(run.config.seed, "forward", step, run.fabric.global_rank), run.fabric.device):
            loss, terms = run.model(**loaded.fields(total_steps))
        run.fabric.backward(loss)
    # Before clipping: metrics.csv should show the gradient that there was.
    gradients = [p.grad for p in run.trainee.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    # One reduction for all numbers: each would wait for the slowest rank.
    mine = torch.stack([loss.detach().float(), *(terms[name].float() for name in objective.terms)])
    mean_loss, *means = cast(Tensor, run.fabric.all_reduce(mine, reduce_op="mean"))
    if run.config.optimiser.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(run.trainee.parameters(), run.config.optimiser.clip_norm, norm)
    run.optimiser.step()
    # Freed, not filled with zeros: the next backward pass writes without reading.
    run.optimiser.zero_grad(set_to_none=True)
    # A teacher follows the weights that the step has just made.
    objective.after_step(run.trainee.encoder, step, total_steps)
    return torch.stack([mean_loss, norm.float(), *means])


def _require_finite(numbers: _Arriving, step: int, loaded: _Loaded) -> list[float]:
    """Wait for the step and return its numbers. Raises TrainingDiverged if loss or gradient is none."""
    # The only place of a step that waits for the device.
    loss, norm, *terms = numbers.wait().tolist()
    if not (isfinite(loss) and isfinite(norm)):
        # Rows of the batch, because one damaged recording is the usual cause.
        rows = " ".join(str(row) for row in loaded.plan.rows.ravel())
        raise TrainingDiverged(
            f"step {step}: found loss {loss} and gradient norm {norm} in a batch of cohort "
            f"{loaded.plan.cohort or 'all'}, expected numbers. Lower the learning rate, or look at rows {rows}."
        )
    return [loss, norm, *terms]


def _measure(run: _Run, state: _State, report: Report) -> Report:
    """The report with what is due to be measured on held-out patients: loss by all ranks, probes by rank 0."""
    if _due(run.config.held_out.every_steps, report):
        trainee = run.trainee
        # In the precision of training: in float32 a GPU that trains in bfloat16 takes several times as long.
        with closing(_held_out_batches(run)) as batches:
            held_out = HeldOut.measure(trainee.encoder, trainee.objective, batches, trainee.tokens, run.fabric.autocast)
        report = replace(report, held_out=held_out)
        if held_out:
            untrained = {} if held_out.untrained is None else {"val_untrained": held_out.untrained}
            state.held_out = {"val_loss": held_out.loss} | untrained
    # Probes are small classifiers on a CPU: the other ranks have nothing to add.
    if run.fabric.global_rank == 0 and run.data.probed and _due(run.config.probes.every_steps, report):
        seed = derive_seed(run.config.seed, "probes")
        report = replace(report, probed=probes.measure(_probed_embeddings(run), run.data.probed, seed))
    return report


def _probed_embeddings(run: _Run) -> NDArray[np.float32]:
    """Embed the central windows of held-out patients, as finished weights would."""
    encoder = run.trainee.encoder
    ahead = read_ahead(run.data.probe_windows(), 2, run.data.store.refuse_removed)
    with monitor._evaluating(encoder), closing(ahead) as blocks:
        windows = (run.courier.windows(rows, block) for rows, block in blocks)
        return np.concatenate([encoder(signal).float().cpu().numpy() for signal in windows])


def _held_out_batches(run: _Run) -> Generator[ViewBatch, None, None]:
    """The same batches with the same draws every time, read ahead; one is on its way while another is computed."""
    sent: list[tuple[str, _Loaded]] = []
    with closing(run.data.held_out_batches(run.courier.memory)) as batches:
        for number, (cohort, batch) in enumerate(batches):
            sent.append((cohort, run.courier.send(batch, "held_out", number)))
            if number:
                yield _held_out_batch(run, *sent.pop(0))
        for one in sent:
            yield _held_out_batch(run, *one)


def _held_out_batch(run: _Run, cohort: str, loaded: _Loaded) -> ViewBatch:
    fields = run.courier.arrived(loaded).fields(run.data.total_steps)
    return replace(ViewBatch(**fields), cohort=cohort)


def _account(run: _Run, state: _State, begun: _Begun, loss: float) -> None:
    cohort, spent_s = begun.loaded.plan.cohort, time.perf_counter() - state.free_s
    for clock in (state.clock, state.whole):
        clock.spent_s, clock.waited_s = clock.spent_s + spent_s, clock.waited_s + begun.waited_s
        clock.ecgs += run.windows
    # A mixed batch has no cohort to whose curve it could count.
    if cohort is not None:
        state.running[cohort] = RUNNING_DECAY * state.running.get(cohort, loss) + (1 - RUNNING_DECAY) * loss


def _seconds_left(run: _Run, report: Report) -> int:
    """At the speed since this process began, pauses included."""
    steps = report.total_steps - report.step
    return round(steps * run.windows / report.wall_ecg_per_s) if report.wall_ecg_per_s else 0


def _restore(run: _Run) -> _State:
    """Load the newest good checkpoint of this run. Raises CheckpointDamaged if there are some and none is."""
    saved, refused = checkpoint.latest(run.folder.checkpoints, _belongs(run))
    for problem in refused:
        logging.getLogger(__name__).warning("%s", problem)
    if saved is None:
        return _State()
    run.trainee.encoder.load_state_dict(saved["encoder"])
    run.trainee.objective.load_state_dict(saved["objective"])
    run.optimiser.load_state_dict(_for_this_device(saved["optimiser"], run.optimiser.param_groups))
    run.data.sampler.load_state_dict(saved["sampler"])
    # Checkpoints of earlier versions have no more than these.
    state = _State(step=saved["step"], running=dict(saved["running"]))
    state.held_out, state.told = saved.get("held_out", {}), saved.get("told", {})
    return state


def _belongs(run: _Run) -> dict[str, str]:
    return {"config_fingerprint": run.config.fingerprint, "store_fingerprint": run.data.store.fingerprint}


def _writers(run: _Run, after_step: int, stack: ExitStack) -> list[_Writer]:
    """Where rows go; nowhere but on rank 0."""
    if run.fabric.global_rank != 0:
        return []
    columns = metrics.columns(run.data.cohorts, run.trainee.objective.terms)
    writers: list[_Writer] = [metrics.MetricsFile(run.folder.metrics, columns, after_step)]
    if run.config.tensorboard:
        writers.append(stack.enter_context(closing(metrics.TensorBoard(run.folder.tensorboard, after_step))))
    return writers


def _row(run: _Run, state: _State, report: Report) -> dict[str, Any]:
    row: dict[str, Any] = {"step": report.step, "epoch": (report.step - 1) // run.data.steps_per_epoch}
    row |= {"lr": report.lr, "loss": report.loss}
    clock = state.clock
    row |= {"ecg_per_s": clock.ecg_per_s, "wait_share": clock.wait_share, "wall_ecg_per_s": clock.wall_ecg_per_s}
    row |= {f"loss_{cohort}": loss for cohort, loss in state.running.items()} | dict(report.terms)
    return row | (report.held_out.row() if report.held_out else {}) | dict(report.probed)


def _save(run: _Run, state: _State, sampler: Mapping[str, Any]) -> None:
    """Checkpoint and curves, by rank 0; the others wait."""
    if run.fabric.global_rank == 0:
        content = {
            "encoder": run.trainee.encoder.state_dict(),
            "objective": run.trainee.objective.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "sampler": sampler,
            "running": state.running,
            "held_out": state.held_out,
            "told": state.told,
            "config": run.config.model_dump_json(),
            **_belongs(run),
        }
        checkpoint.save(run.folder.checkpoints, state.step, content, run.config.keep_checkpoints)
        is_over = state.step == run.data.total_steps
        if run.config.curves and (is_over or time.monotonic() - state.drawn_s >= CURVES_S):
            title = f"{run.config.name}, seed {run.config.seed}, step {state.step} of {run.data.total_steps}"
            curves.draw(run.folder.metrics, run.folder.curves, title)
            state.drawn_s = time.monotonic()
    run.fabric.barrier()


def _status(run: _Run, state: _State, now: str, **more: Any) -> None:
    """status.json: at the start, with every checkpoint, every few seconds, and when the run ends, well or not."""
    state.told_s = time.monotonic()
    if run.fabric.global_rank == 0:
        place = {"state": now, "step": state.step, "total_steps": run.data.total_steps}
        run.folder.status({**place, **more, **state.held_out})
