"""A store in memory and a run of 12 steps that is over in a third of a second."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from capezoo.specs import (
    EncoderSpec,
    HeldOutSpec,
    InputSpec,
    OptimiserSpec,
    ProbeSpec,
    RunConfig,
    SamplerSpec,
    ViewSpec,
)
from capezoo.training import checkpoint
from capezoo.training.loop import pretrain
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe

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

    def refuse_removed(self) -> None:
        """Nobody is."""

    def read_windows(self, rows, first, length, out, targets=None, threads=None) -> None:
        places = range(len(rows)) if targets is None else targets
        for row, start, n, target in zip(rows, first, length, places, strict=True):
            out[target, :, :n], out[target, :, n:] = self.signals[row, :, start : start + n], -32768


def make_store(patients: tuple[int, ...] = (40, 30), records: int = 2, seed: int = 0) -> MemoryStore:
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


def make_config(**changes: object) -> RunConfig:
    """A tiny run of 12 steps: dropout, masks and both cohorts, so that every source of randomness is at work."""
    values: dict[str, object] = {
        "name": "tiny",
        "seed": 5,
        "encoder": EncoderSpec(config={"widths": [8], "embedding_dim": 8, "stem_stride": 4, "dropout": 0.2}),
        "input": InputSpec(length=LENGTH),
        "sampler": SamplerSpec(groups=8),
        "views": (ViewSpec(name="zero_span", config={"samples": (10, 50)}),),
        "optimiser": OptimiserSpec(lr=0.01),
        "held_out": HeldOutSpec(fraction=0.2, every_steps=5),
        "max_steps": STEPS,
        "checkpoint_every": 5,
        "log_every": 1,
        "probes": ProbeSpec(patients=0),
        "curves": False,
    }
    return RunConfig.model_validate(values | changes)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.latest(run / "checkpoints")[0]
    assert state is not None
    tensors = {f"encoder.{k}": v for k, v in state["encoder"].items()}
    tensors |= {f"objective.{k}": v for k, v in state["objective"].items()}
    for number, slots in state["optimiser"]["state"].items():
        tensors |= {f"optimiser.{number}.{k}": torch.as_tensor(v) for k, v in slots.items()}
    return tensors


def read_rows(run: Path) -> list[dict[str, str]]:
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
    return make_store()


@pytest.fixture(scope="module")
def undisturbed(store: MemoryStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(store, make_config(), tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture(scope="session")
def memory_store() -> Callable[..., MemoryStore]:
    return make_store


@pytest.fixture(scope="session")
def config() -> Callable[..., RunConfig]:
    return make_config


@pytest.fixture(scope="session")
def weights() -> Callable[[Path], dict[str, torch.Tensor]]:
    return weights_of


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, str]]]:
    return read_rows
