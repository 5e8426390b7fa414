"""Training: it learns, stops where it must, and after any kill ends with the weights of an undisturbed run."""

import csv
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from math import cos, log, pi
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from capezoo import checkpoint
from capezoo.errors import CheckpointDamaged, TrainingDiverged
from capezoo.specs import EncoderSpec, HeldOutSpec, InputSpec, OptimiserSpec, RunConfig, SamplerSpec, ViewsSpec
from capezoo.train import Report, half_cosine, pretrain, trained
from ecgcohorts.errors import PlanImpossible, RecipeMismatch, SourceError, SpecError, StateMismatch
from ecgcohorts.index import COLUMNS, CohortIndex
from ecgcohorts.recipes import CAPE_V1, Recipe

T = 4000
LENGTH = 256
STEPS = 12


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """A store's duck type over arrays in memory."""

    signals: NDArray[np.int16]  # (row, lead, time)
    index: CohortIndex
    recipe: Recipe = CAPE_V1
    fingerprint: str = "f" * 64

    lsb_uv = 1.0

    @property
    def n_rows(self) -> int:
        return len(self.signals)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        return self.signals[np.asarray(rows)]

    def read_into(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        out[:] = self.signals[rows]


def memory_store(patients: tuple[int, ...] = (40, 30), records: int = 2, seed: int = 0) -> MemoryStore:
    """Cohorts of patients who each have a rhythm and lead gains of their own: easy to tell apart, noisy."""
    rng = np.random.default_rng(seed)
    n_patients = sum(patients)
    n = n_patients * records
    patient = np.repeat(np.arange(n_patients), records)
    period = rng.uniform(60, 240, n_patients)[patient]
    gains = rng.normal(0, 600, (n_patients, 8))[patient]
    phase = rng.uniform(0, 2 * np.pi, n)
    wave = np.cos(2 * np.pi * np.arange(T) / period[:, None] + phase[:, None]) ** 5
    signals = gains[:, :, None] * wave[:, None] + rng.normal(0, 20, (n, 8, T))
    ids = {name: np.zeros((n, 16), np.uint8) for name in ("recording_id", "patient_id", "waveform_digest")}
    for name, of in (("recording_id", np.arange(n)), ("patient_id", patient), ("waveform_digest", np.arange(n))):
        ids[name][:] = [list(sha256(f"{name}{i}".encode()).digest()[:16]) for i in of]
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {"row": np.arange(n), "patient": patient, "valid_stop": np.full(n, T, np.int32)} | ids
    columns["cohort"] = np.repeat(np.arange(len(patients), dtype=np.int32), [p * records for p in patients])
    names = tuple(f"cohort_{chr(97 + i)}" for i in range(len(patients)))
    return MemoryStore(np.rint(signals).astype(np.int16), CohortIndex(columns, names))


def config(**changes: object) -> RunConfig:
    """A tiny run of 12 steps: dropout, masks and both cohorts, so that every source of randomness is at work."""
    values: dict[str, object] = {
        "name": "tiny",
        "seed": 5,
        "encoder": EncoderSpec(config={"widths": [8], "embedding_dim": 8, "stem_stride": 4, "dropout": 0.2}),
        "input": InputSpec(length=LENGTH),
        "sampler": SamplerSpec(pairs=8),
        "views": ViewsSpec(mask_samples=(10, 50)),
        "optimiser": OptimiserSpec(lr=0.01),
        "held_out": HeldOutSpec(fraction=0.2, every_steps=5),
        "max_steps": STEPS,
        "checkpoint_every": 5,
        "log_every": 1,
    }
    return RunConfig.model_validate(values | changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.latest(run / "checkpoints")[0]
    assert state is not None
    tensors = {f"encoder.{k}": v for k, v in state["encoder"].items()}
    tensors |= {f"objective.{k}": v for k, v in state["objective"].items()}
    for number, slots in state["optimiser"]["state"].items():
        tensors |= {f"optimiser.{number}.{k}": torch.as_tensor(v) for k, v in slots.items()}
    return tensors


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert different == []


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads. Bits depend on the number of threads, so it is fixed here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return memory_store()


@pytest.fixture(scope="module")
def undisturbed(store: MemoryStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(store, config(), tmp_path_factory.mktemp("undisturbed") / "run")


class Killed(BaseException):
    """Stands for SIGKILL inside one process: no handler of the package may catch it."""


def kill_after(step: int) -> Callable[[Report], None]:
    def tell(report: Report) -> None:
        if report.step == step:
            raise Killed

    return tell


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_after_any_step_and_resumed_ends_with_the_same_weights(
    step: int, store: MemoryStore, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        pretrain(store, config(), tmp_path / "run", progress=kill_after(step))
    pretrain(store, config(), tmp_path / "run")
    assert_same(weights(tmp_path / "run"), weights(undisturbed))
    steady = ("step", "epoch", "lr", "loss", "grad_norm", "cohort", "val_loss", "loss_cohort_a", "effective_rank")
    for found, expected in zip(rows_of(tmp_path / "run"), rows_of(undisturbed), strict=True):
        assert {key: found[key] for key in steady} == {key: expected[key] for key in steady}


# What a save does to the file system, in order; a kill before each must leave the checkpoint before it in force.
SAVE_CALLS = [
    "unlink digest",
    "fsync file",
    "replace file",
    "fsync folder",
    "fsync digest",
    "replace digest",
    "fsync folder 2",
]


@pytest.mark.parametrize("call", range(len(SAVE_CALLS)), ids=SAVE_CALLS)
@pytest.mark.parametrize("save", [1, 2])
def test_killed_in_the_middle_of_saving(
    call: int, save: int, store: MemoryStore, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_in_save(patch, save, call)
        with pytest.raises(Killed):
            pretrain(store, config(), run)
    finished = checkpoint.steps(run / "checkpoints")
    # Once the digest is in place the checkpoint counts, whether or not the folder was flushed.
    assert finished == [5, 10][: save if SAVE_CALLS[call] == "fsync folder 2" else save - 1]
    pretrain(store, config(), run)
    assert_same(weights(run), weights(undisturbed))


def kill_in_save(patch: pytest.MonkeyPatch, save: int, call: int) -> None:
    """Raise Killed in place of file system call number `call` of the `save`-th checkpoint."""
    real_save = checkpoint.save
    state = {"saves": 0, "calls": 0, "inside": False}

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call_or_die(*args: object, **kwargs: object) -> object:
            if state["inside"] and state["saves"] == save:
                state["calls"] += 1
                if state["calls"] > call:
                    raise Killed
            return real(*args, **kwargs)

        return call_or_die

    def watched(*args: object, **kwargs: object) -> object:
        state.update(saves=state["saves"] + 1, calls=0, inside=True)
        try:
            return real_save(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            state["inside"] = False

    patch.setattr(checkpoint, "save", watched)
    patch.setattr(Path, "unlink", counted(Path.unlink))
    patch.setattr(os, "fsync", counted(os.fsync))
    patch.setattr(os, "replace", counted(os.replace))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "no digest"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(
    damage: str, store: MemoryStore, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        pretrain(store, config(), run, progress=kill_after(11))
    newest = run / "checkpoints" / "step-00000010.pt"
    data = bytearray(newest.read_bytes())
    if damage == "truncate":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        newest.with_name(f"{newest.name}.sha256").unlink()
    with caplog.at_level(logging.WARNING):
        pretrain(store, config(), run)
    if damage != "no digest":  # without a digest it was never finished: nothing to warn of
        assert "step-00000010.pt: found sha256" in caplog.text
    assert_same(weights(run), weights(undisturbed))


def test_a_killed_process_resumes(undisturbed: Path, store: MemoryStore, tmp_path: Path) -> None:
    """The same with a real SIGKILL at a moment that nobody chose."""
    code = (
        "import importlib.util, os, signal, sys, torch\n"
        "torch.set_num_threads(1)\n"
        f"spec = importlib.util.spec_from_file_location('train_test', {__file__!r})\n"
        "test = importlib.util.module_from_spec(spec); sys.modules['train_test'] = test; spec.loader.exec_module(test)\n"
        "def tell(report):\n"
        "    if report.step == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"test.pretrain(test.memory_store(), test.config(), test.Path({str(tmp_path / 'run')!r}), progress=tell)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [5]
    pretrain(store, config(), tmp_path / "run")
    assert_same(weights(tmp_path / "run"), weights(undisturbed))


def test_two_processes_share_the_batches(store: MemoryStore, undisturbed: Path, tmp_path: Path) -> None:
    """As torchrun starts them: same schedule, each rank half of every batch, one run folder, equal weights."""
    code = (
        "import importlib.util, os, sys, torch\n"
        "torch.set_num_threads(1)\n"
        f"spec = importlib.util.spec_from_file_location('train_test', {__file__!r})\n"
        "test = importlib.util.module_from_spec(spec); sys.modules['train_test'] = test; spec.loader.exec_module(test)\n"
        "seen = []\n"
        f"test.pretrain(test.memory_store(), test.config(), test.Path({str(tmp_path / 'run')!r}), progress=seen.append)\n"
        "print([round(report.loss, 5) for report in seen], seen[-1].held_out.loss)\n"
    )
    common = os.environ | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "NODE_RANK": "0"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "test"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=300) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said[0][1].decode() + said[1][1].decode()
    assert said[0][0] == said[1][0]  # both report the loss of the whole batch
    together, alone = rows_of(tmp_path / "run"), rows_of(undisturbed)
    assert [row["step"] for row in together] == [row["step"] for row in alone]
    assert [row["cohort"] for row in together] == [row["cohort"] for row in alone]
    assert [bool(row["val_loss"]) for row in together] == [bool(row["val_loss"]) for row in alone]
    assert trained(tmp_path / "run")[2]["step"] == STEPS


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_bar_is_drawn_off_a_terminal(store: MemoryStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pretrain(store, config(max_steps=2), tmp_path / "run")
    assert capfd.readouterr() == ("", "")


def test_the_same_run_twice_is_the_same_and_leaves_global_generators_alone(
    store: MemoryStore, undisturbed: Path, tmp_path: Path
) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    pretrain(store, config(), tmp_path / "run")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert_same(weights(tmp_path / "run"), weights(undisturbed))
    other = pretrain(store, config(seed=6), tmp_path / "other")
    assert not torch.equal(weights(other)["encoder.stem.weight"], weights(undisturbed)["encoder.stem.weight"])


def test_a_finished_run_is_left_as_it_is(store: MemoryStore, tmp_path: Path) -> None:
    run = pretrain(store, config(max_steps=2), tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    calls: list[Report] = []
    pretrain(store, config(max_steps=2), run, progress=calls.append)
    assert calls == []
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_run_folder(undisturbed: Path, store: MemoryStore) -> None:
    assert RunConfig.model_validate(yaml.safe_load((undisturbed / "config.yaml").read_text())) == config()
    status = json.loads((undisturbed / "status.json").read_text())
    assert (status["state"], status["step"], status["total_steps"]) == ("done", STEPS, STEPS)
    assert checkpoint.steps(undisturbed / "checkpoints") == [10, STEPS]  # the two newest
    environment = json.loads((undisturbed / "env.json").read_text())
    assert environment["torch"] == version("torch")
    data = json.loads((undisturbed / "data.json").read_text())
    assert data["store_fingerprint"] == store.fingerprint
    trained_on = {use["name"]: use["patients"] for use in data["cohorts"]}
    held_out = {use["name"]: use["patients"] for use in data["held_out"]}
    assert {name: trained_on[name] + held_out[name] for name in trained_on} == {"cohort_a": 40, "cohort_b": 30}
    digests = np.frombuffer((undisturbed / "training_digests.bin").read_bytes(), np.uint8).reshape(-1, 16)
    assert len(digests) == 2 * sum(trained_on.values())
    assert {bytes(d) for d in digests} < {bytes(d) for d in store.index["waveform_digest"]}
    text = "".join(path.read_text() for path in undisturbed.glob("*.json")) + (undisturbed / "config.yaml").read_text()
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text


def test_metrics_hold_what_they_promise(undisturbed: Path) -> None:
    rows = rows_of(undisturbed)
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert [row["lr"] for row in rows] == [f"{0.005 * (1 + cos(pi * t / STEPS)):.6g}" for t in range(STEPS)]
    assert {row["cohort"] for row in rows} == {"cohort_a", "cohort_b"}
    measured = [int(row["step"]) for row in rows if row["val_loss"]]
    assert measured == [5, 10, 12]
    last = rows[-1]
    assert 1 <= float(last["effective_rank"]) <= 8
    assert 0 <= int(last["dead_units"]) <= 8
    assert 0 < float(last["alignment"]) < 4
    assert float(last["uniformity"]) < 0
    assert 0 <= float(last["wait_share"]) <= 1
    assert float(last["ecg_per_s"]) > 0
    losses = [float(row["loss"]) for row in rows if row["cohort"] == "cohort_a"]
    running = losses[0]
    for loss in losses[1:]:
        running = 0.9 * running + 0.1 * loss
    assert float(last["loss_cohort_a"]) == pytest.approx(running, rel=1e-4)


@pytest.mark.parametrize("name", ["in_distribution", "patient_pairs"])
def test_it_learns_to_recognise_patients_it_never_saw(name: str, tmp_path: Path) -> None:
    changes = {"sampler": SamplerSpec(name=name, pairs=16), "optimiser": OptimiserSpec(lr=0.01), "max_steps": 80}
    run = pretrain(memory_store((160, 120)), config(**changes, log_every=80, checkpoint_every=80), tmp_path / "run")
    last = rows_of(run)[-1]
    # 16 pairs at most, fewer where a cohort has fewer held-out patients: the bound follows.
    assert float(last["val_bound"]) == pytest.approx(log(31), abs=0.2)
    assert float(last["val_loss"]) < float(last["val_bound"]) - 0.5
    assert (last["cohort"] == "") == (name == "patient_pairs")


def test_single_recording_patients_pair_with_themselves_if_asked(tmp_path: Path) -> None:
    singles = memory_store(records=1)
    with pytest.raises(PlanImpossible, match="singles='self'"):
        pretrain(singles, config(), tmp_path / "refused")
    run = pretrain(singles, config(sampler=SamplerSpec(pairs=8, singles="self"), max_steps=2), tmp_path / "run")
    assert json.loads((run / "status.json").read_text())["state"] == "done"


def test_small_cohorts_are_refused_or_left_out_and_named(tmp_path: Path) -> None:
    uneven = memory_store((40, 6))
    with pytest.raises(PlanImpossible, match="cohort_b has"):
        pretrain(uneven, config(), tmp_path / "refused")
    run = pretrain(uneven, config(sampler=SamplerSpec(pairs=8, small_groups="drop"), max_steps=2), tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    assert list(data["sampler"]["left_out"]) == ["cohort_b"]
    assert [use["name"] for use in data["cohorts"]] == ["cohort_a"]


def test_chosen_cohorts_only(store: MemoryStore, tmp_path: Path) -> None:
    run = pretrain(store, config(cohorts=("cohort_b",), max_steps=3), tmp_path / "run")
    assert {row["cohort"] for row in rows_of(run)} == {"cohort_b"}
    with pytest.raises(SpecError, match="no cohort 'cohort_z'"):
        pretrain(store, config(cohorts=("cohort_z",)), tmp_path / "other")


def test_without_held_out_patients_nothing_is_measured(store: MemoryStore, tmp_path: Path) -> None:
    run = pretrain(store, config(held_out=HeldOutSpec(fraction=0.0), max_steps=2), tmp_path / "run")
    assert [row["val_loss"] for row in rows_of(run)] == ["", ""]


def test_no_patient_is_trained_on_and_held_out(store: MemoryStore) -> None:
    from capezoo.data import prepare

    data = prepare(store, config())  # type: ignore[arg-type]
    assert data.held_out is not None
    trained_on, held_out = ({bytes(i) for i in part["patient_id"]} for part in (data.train, data.held_out))
    assert trained_on
    assert held_out
    assert trained_on.isdisjoint(held_out)
    rows = {row for _, batch in data.held_out_batches() for row in batch.plan.rows.ravel().tolist()}
    assert rows <= set(data.held_out["row"].tolist())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(
    poison: float, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capezoo.objectives import info_nce

    real = info_nce.info_nce
    calls = {"n": 0}

    def poisoned(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
        calls["n"] += 1
        return real(first, second, temperature) * (poison if calls["n"] == 4 else 1.0)

    monkeypatch.setattr(info_nce, "info_nce", poisoned)
    with pytest.raises(
        TrainingDiverged, match=r"step 3: found loss (nan|inf) .* cohort cohort_[ab].* rows \d+( \d+){15}\.$"
    ):
        pretrain(store, config(), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == []
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("diverged", 3)
    assert "found loss" in status["reason"]


def test_another_run_in_the_folder_is_not_continued(store: MemoryStore, undisturbed: Path) -> None:
    with pytest.raises(StateMismatch, match=r"optimiser.lr 0.01 \(now 0.02\)"):
        pretrain(store, config(optimiser=OptimiserSpec(lr=0.02)), undisturbed)
    with pytest.raises(StateMismatch, match="found a run, expected an empty folder"):
        pretrain(store, config(), undisturbed, resume=False)
    other = MemoryStore(store.signals, store.index, fingerprint="0" * 64)
    with pytest.raises(StateMismatch, match="another store"):
        pretrain(other, config(), undisturbed)


def test_a_store_of_another_recipe_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    other = MemoryStore(store.signals, store.index, recipe=CAPE_V1.model_copy(update={"name": "cape-ref-1"}))
    with pytest.raises(RecipeMismatch, match="cape-ref-1"):
        pretrain(other, config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trained_gives_the_encoder_in_evaluation_mode(undisturbed: Path, tmp_path: Path) -> None:
    encoder, its_config, state = trained(undisturbed)
    assert its_config == config()
    assert state["step"] == STEPS
    assert not encoder.training
    expected = weights(undisturbed)
    assert all(torch.equal(value, expected[f"encoder.{name}"]) for name, value in encoder.state_dict().items())
    with pytest.raises(SourceError, match=r"no config\.yaml"):
        trained(tmp_path)


def test_all_checkpoints_damaged_is_an_error_not_a_fresh_start(store: MemoryStore, tmp_path: Path) -> None:
    run = pretrain(store, config(max_steps=2), tmp_path / "run")
    (run / "checkpoints" / "step-00000002.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointDamaged, match="Delete it"):
        pretrain(store, config(max_steps=2), run)


def test_half_cosine_equals_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([parameter], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=50)
    for step in range(50):
        assert half_cosine(step, 50, OptimiserSpec()) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        schedule.step()


def test_warmup_rises_to_the_peak_and_the_cosine_follows() -> None:
    spec = OptimiserSpec(lr=1.0, warmup_steps=4)
    rates = [half_cosine(step, 12, spec) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)


def test_gradient_clipping_bounds_the_update(store: MemoryStore, tmp_path: Path) -> None:
    free = pretrain(store, config(max_steps=1), tmp_path / "free")
    clip = OptimiserSpec(lr=0.01, clip_norm=1e-9, eps=1.0)  # with eps 1, Adam's step is proportional to the gradient
    clipped = pretrain(store, config(max_steps=1, optimiser=clip), tmp_path / "clipped")
    start = trained(free)[0].state_dict()["stem.weight"], trained(clipped)[0].state_dict()["stem.weight"]
    from capezoo import encoders
    from capezoo.specs import derive_seed

    origin = encoders.build(config().encoder, derive_seed(5, "encoder")).state_dict()["stem.weight"]
    moved = [(weight - origin).abs().max().item() for weight in start]
    assert moved[0] > 1e-3
    assert moved[1] < 1e-8


def test_bfloat16_trains(store: MemoryStore, tmp_path: Path) -> None:
    run = pretrain(store, config(precision="bf16-mixed", max_steps=2), tmp_path / "run")
    assert weights(run)["encoder.stem.weight"].dtype == torch.float32
    assert all(np.isfinite(float(row["loss"])) for row in rows_of(run))
