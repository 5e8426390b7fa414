"""What training does on a GPU and not on a CPU, without one: a GPU of paper, stand-ins, and what can be counted."""

import csv
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.overrides import TorchFunctionMode

from capezoo import encoders, objectives
from capezoo.errors import TrainingDiverged
from capezoo.objectives import ViewBatch
from capezoo.specs import ComputeSpec, EncoderSpec, HeldOutSpec, ObjectiveSpec, OptimiserSpec, ProbeSpec
from capezoo.training import checkpoint, curves, device, monitor
from capezoo.training import loop as train
from capezoo.training.optimiser import Optimiser, _for_this_device
from capezoo.training.progress import _Clock
from ecgcohorts.errors import SpecError

GPU, CPU = torch.device("cuda"), torch.device("cpu")
LARS = OptimiserSpec(kind="lars", lr=0.01)  # has no kernel of its own on a GPU: the same numbers


class PaperFabric(Fabric):
    """Computes on the CPU and says that it is a GPU."""

    device = property(lambda self: GPU)

    def to_device(self, obj):
        return obj


@pytest.fixture
def on_paper(paper_gpu, monkeypatch):
    """`pretrain` on a GPU of paper."""
    monkeypatch.setattr(device, "start", lambda spec, stall_s=0.0: PaperFabric(accelerator="cpu", devices=1))
    monkeypatch.setattr(device, "pinned", paper_gpu.pinned)
    paper_gpu.install(monkeypatch)
    return paper_gpu


def rows_without_times(run):
    with (run / "metrics.csv").open(newline="") as file:
        times = ("ecg_per_s", "wall_ecg_per_s", "wait_share")
        return [{key: value for key, value in row.items() if key not in times} for row in csv.DictReader(file)]


def test_the_path_of_a_gpu_gives_what_that_of_a_cpu_gives(store, config, weights, tmp_path, on_paper):
    tiny = config(optimiser=LARS, probes=ProbeSpec(patients=5, every_steps=4))
    with on_paper:
        there = train.pretrain(store, tiny, tmp_path / "gpu")
    on_paper.asked["events"] = on_paper.asked["events"], on_paper.asked["page-locked batches"]
    with pytest.MonkeyPatch.context() as patch:
        patch.undo()
        patch.setattr(device, "start", lambda spec, stall_s=0.0: Fabric(accelerator="cpu", devices=1))
        here = train.pretrain(store, tiny, tmp_path / "cpu")
    assert rows_without_times(there) == rows_without_times(here)
    one, two = weights(there), weights(here)
    assert all(torch.equal(one[name], two[name]) for name in two)
    # An event a step; page-locked memory for 12 batches, and for those of held-out patients at steps 5, 10 and 12.
    events, batches = on_paper.asked["events"]
    assert events == 12
    assert batches >= 12 + 3 * 2


def test_a_gpu_is_given_the_next_step_before_the_last_is_read(store, config, tmp_path, on_paper, monkeypatch):
    order = []
    begin, read, save = train._step, train._require_finite, train._save
    monkeypatch.setattr(train, "_step", lambda run, step, loaded: order.append(step) or begin(run, step, loaded))
    monkeypatch.setattr(
        train, "_require_finite", lambda now, step, of: order.append(f"read {step}") or read(now, step, of)
    )
    monkeypatch.setattr(
        train, "_save", lambda run, state, of: order.append(f"save {state.step}") or save(run, state, of)
    )
    tiny = config(held_out=HeldOutSpec(fraction=0.2, every_steps=4), max_steps=8, optimiser=LARS)
    with on_paper:
        train.pretrain(store, tiny, tmp_path / "run")
    # What is measured after 4 steps and saved after 5 has the weights of that step.
    assert order == [0, 1, "read 0", 2, "read 1", 3, "read 2", "read 3", 4, "read 4", "save 5",
                     5, 6, "read 5", 7, "read 6", "read 7", "save 8"]  # fmt: skip


def test_a_loss_that_is_none_is_never_saved_though_it_is_read_late(store, config, tmp_path, on_paper, monkeypatch):
    begin = train._step

    def spoilt(run, step, loaded):
        numbers = begin(run, step, loaded)
        if step == 6:
            numbers[0] = float("nan")
            nn.init.constant_(run.trainee.encoder.stem.weight, float("nan"))
        return numbers

    monkeypatch.setattr(train, "_step", spoilt)
    with on_paper, pytest.raises(TrainingDiverged, match="step 6: found loss nan"):
        train.pretrain(store, config(checkpoint_every=1, optimiser=LARS), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == 6
    assert all(value.isfinite().all() for value in checkpoint.trained(tmp_path / "run")[0].state_dict().values())


def test_held_out_batches_are_computed_in_the_precision_of_training(store, config, tmp_path, monkeypatch):
    seen = set()

    class Noted(objectives.info_nce.Objective):
        def forward(self, encoder, batch):
            hook = encoder.units[0].conv1.register_forward_hook(lambda m, x, y: seen.add((self.training, y.dtype)))
            try:
                return super().forward(encoder, batch)
            finally:
                hook.remove()

    monkeypatch.setattr(objectives.info_nce, "Objective", Noted)
    train.pretrain(store, config(compute=ComputeSpec(precision="bf16-mixed"), max_steps=5), tmp_path / "run")
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for a device."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in ("cpu", "item", "tolist", "numpy", "__bool__", "__float__")
        return func(*args, **(kwargs or {}))


def test_statistics_stay_on_the_device_until_the_last_batch_is_begun():
    seen, waits = [], Waits()

    class Encoder(nn.Module):
        def forward(self, x):
            seen.append(waits.count)
            return x.mean(-1)

    objective = objectives.build(ObjectiveSpec(), SimpleNamespace(num_features=8), 0)
    signal = torch.randn(6, 2, 8, 32, generator=torch.Generator().manual_seed(0))
    valid, group = torch.full((6, 2), 32), torch.arange(6)
    batches = [ViewBatch(signal * scale, valid, group, "a", 0, 1, torch.Generator()) for scale in (1.0, 2.0, 3.0)]
    with waits:
        measured = monitor.HeldOut.measure(Encoder(), objective, batches)
    assert measured is not None
    assert len(seen) >= 9
    assert seen == [seen[0]] * len(seen)


def test_held_out_batches_are_read_ahead(store, config, monkeypatch):
    """The thread reads the second while the first is in use; closing ends it."""
    import threading

    data = train.TrainingData.prepare(store, config(held_out=HeldOutSpec(fraction=0.4, batches_per_cohort=3)))
    plain = [(name, loader.load(0, 0)) for name, loader in data._held_out_loaders.items()]
    batches = data.held_out_batches()
    first = next(batches)
    assert [thread.name for thread in threading.enumerate()].count("ecgcohorts-loader") == 1
    assert first[0] == plain[0][0]
    assert (first[1].signal == plain[0][1].signal).all()
    batches.close()
    assert "ecgcohorts-loader" not in [thread.name for thread in threading.enumerate()]


def test_curves_are_drawn_at_first_and_at_the_end_and_every_ten_minutes(store, config, tmp_path, monkeypatch):
    drawn, now = [], [0.0]
    monkeypatch.setattr(curves, "draw", lambda metrics, out, title: drawn.append(title.split()[-3]))
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0]))

    def tell(report):
        now[0] += 100.0

    train.pretrain(store, config(checkpoint_every=1, curves=True, max_steps=10), tmp_path / "run", progress=tell)
    assert drawn == ["1", "7", "10"]


def test_speed_is_told_with_and_without_pauses(store, config, tmp_path, monkeypatch):
    monkeypatch.setattr("capezoo.training.progress.time", SimpleNamespace(perf_counter=lambda: 14.0))
    clock = _Clock(waited_s=1.0, spent_s=2.0, ecgs=100, begun_s=10.0)
    assert (clock.ecg_per_s, clock.wall_ecg_per_s, clock.wait_share) == (50.0, 25.0, 0.5)
    monkeypatch.undo()
    seen = []
    run = train.pretrain(store, config(), tmp_path / "run", progress=seen.append)
    assert all(report.wall_ecg_per_s > 0 for report in seen)
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Whatever the clock says: a step's own time is a part of the whole.
    assert all(0 < float(row["wall_ecg_per_s"]) <= float(row["ecg_per_s"]) * (1 + 1e-5) for row in rows)


def test_apples_gpu_is_never_taken(monkeypatch):
    asked = []
    monkeypatch.setattr(device, "Fabric", lambda **how: asked.append(how) or SimpleNamespace(launch=lambda: None))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        device.start(ComputeSpec())
    assert [how["accelerator"] for how in asked] == ["cpu", "cuda"]


@pytest.mark.parametrize(("saved_on", "resumed_on"), [(GPU, CPU), (CPU, GPU), (CPU, CPU)])
def test_a_run_resumed_on_another_device_takes_its_kernels(saved_on, resumed_on):
    """torch has the fused kernel on CPUs, too."""

    def stepped(on, state=None):
        layer = nn.Linear(3, 2)
        made = Optimiser(layer.named_parameters(), OptimiserSpec(lr=0.01), on).torch
        own = [group["fused"] for group in made.param_groups]
        if state is not None:
            made.load_state_dict(_for_this_device(state, made.param_groups))
        assert [group["fused"] for group in made.param_groups] == own
        layer(torch.ones(4, 3)).sum().backward()
        made.step()
        return made

    resumed = stepped(resumed_on, stepped(saved_on).state_dict())
    assert {float(slots["step"]) for slots in resumed.state.values()} == {2.0}
    assert all(bool(group["fused"]) == (resumed_on == GPU) for group in resumed.param_groups)


def test_the_switches_of_a_gpu_are_those_of_the_run_and_come_back():
    for before in (False, True):
        torch.backends.cudnn.benchmark = before
        with device._computing(ComputeSpec(), CPU):
            assert torch.backends.cudnn.benchmark == before
        with device._computing(ComputeSpec(), GPU):
            assert torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.benchmark == before
    torch.backends.cudnn.benchmark = False


SWITCHES = """
import os, torch, warnings
from capezoo.devices import _float32_products
warnings.simplefilter("ignore")
matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
asked = {
    "old products": torch.get_float32_matmul_precision, "old convolutions": lambda: cudnn.allow_tf32,
    "old cuda": lambda: matmul.allow_tf32, "all": lambda: torch.backends.fp32_precision,
    "products": lambda: matmul.fp32_precision, "convolutions": lambda: cudnn.conv.fp32_precision,
    "recurrences": lambda: cudnn.rnn.fp32_precision, "cpu": lambda: torch.backends.mkldnn.matmul.fp32_precision,
}
def told():
    found = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except RuntimeError:
            pass  # it contradicts itself before we come
    return found
callers = {
    "nothing": lambda: None,
    "old": lambda: (torch.set_float32_matmul_precision("high"), setattr(cudnn, "allow_tf32", False)),
    "new": lambda: (setattr(matmul, "fp32_precision", "tf32"), setattr(cudnn.conv, "fp32_precision", "ieee")),
    "all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}
for name, set_ in callers.items():
    for tf32 in (True, False):
        if os.fork():
            assert os.wait()[1] == 0, (name, tf32)
            continue
        set_()
        before = told()
        with _float32_products(tf32, torch.device("cuda")):
            inside = told()
        after = told()
        word = "tf32" if tf32 else "ieee"
        assert {inside[one] for one in ("products", "convolutions", "recurrences")} == {word}, inside
        # torch.compile reads the older ones.
        assert inside["old products"] == ("high" if tf32 else "highest"), inside
        assert inside["old convolutions"] == inside["old cuda"] == tf32, inside
        assert {key: after.get(key) for key in before} == before, (name, before, after)
        os._exit(0)
print("all")
"""


def test_exact_products_whichever_of_torchs_switches_the_caller_has_used():
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # before torch 2.9 there is one kind of them
        with device._computing(ComputeSpec(tf32=False), GPU):
            assert torch.get_float32_matmul_precision() == "highest"
        return
    done = subprocess.run([sys.executable, "-c", SWITCHES], env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.stdout == "all\n", done.stderr


def test_compiled_batch_norm_across_processes_is_refused():
    layers = nn.Sequential(encoders.build(EncoderSpec(config={"widths": [4], "embedding_dim": 4}), 0))
    with pytest.raises(
        SpecError, match=r"compile=true with compute.batch_norm='sync' and 2 processes.*batch_norm=local"
    ):
        device._share_norms(layers, ComputeSpec(compile=True), GPU, 2)
    for spec, processes in ((ComputeSpec(compile=True, batch_norm="local"), 2), (ComputeSpec(compile=True), 1)):
        device._share_norms(layers, spec, GPU, processes)
    assert not any(isinstance(one, nn.SyncBatchNorm) for one in layers.modules())
