"""A real store of two simulated hospitals, made once, a run trained on it for a moment, and a store in memory."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from capezoo.specs import EncoderSpec, HeldOutSpec, OptimiserSpec, ProbeSpec, RunConfig, SamplerSpec
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.recording import Recording


@pytest.fixture
def paper_gpu():
    """A GPU that is none: see paper_gpu.py."""
    path = Path(__file__).with_name("paper_gpu.py")
    spec = importlib.util.spec_from_file_location("paper_gpu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PaperGpu()


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with store.zarr: cohorts north and river, 36 patients each, some 170 recordings in all."""
    from ecgcohorts.ingest import IngestOptions, ingest
    from ecgcohorts.simulate import HOSPITALS, simulate

    folder = tmp_path_factory.mktemp("simulated")
    hospitals = [HOSPITALS[name] for name in ("north", "river")]
    simulate(folder / "raw", patients_per_cohort=36, seed=4, hospitals=hospitals)
    key = folder / "key"
    key.write_text(bytes(range(32)).hex())
    for hospital in hospitals:
        source = folder / "raw" / hospital.name
        ingest(source, folder / "store.zarr", str(source / "cohort.yaml"), IngestOptions(key_file=key))
    return folder


@pytest.fixture(scope="session")
def run_folder(simulated: Path) -> Path:
    """A finished run of four steps; in the same folder as the store."""
    from capezoo.training.loop import pretrain
    from ecgcohorts.store import open_store

    config = RunConfig(
        name="tiny_x",
        seed=7,
        encoder=EncoderSpec(config={"widths": [8, 8], "embedding_dim": 12, "stem_stride": 4, "kernel": 8}),
        sampler=SamplerSpec(name="patient_pairs", groups=8),
        optimiser=OptimiserSpec(lr=1e-3),
        held_out=HeldOutSpec(fraction=0.2, every_steps=2, batches_per_cohort=1),
        max_steps=4,
        log_every=1,
        probes=ProbeSpec(patients=0),
        curves=False,
    )
    return pretrain(open_store(simulated / "store.zarr"), config, simulated / "run", progress=lambda report: None)


@dataclass
class FakeStore:
    """What embedding reads of a store."""

    index: CohortIndex
    strips: np.ndarray
    recipe: Recipe = CAPE_V1
    path: Path = Path("fake.zarr")
    fingerprint: str = "f" * 64

    def read(self, rows):
        return self.strips[rows]

    def refuse_removed(self) -> None:
        """Nobody is."""


def ecg(seed, seconds=10.0, rate_hz=500):
    """(12, time) mV: spikes with weights of their own, exact limb-lead identities, no drift."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = sum(np.exp(-(((t - c) / 0.02) ** 2)) for c in np.arange(0.4, seconds, rng.uniform(0.7, 1.0)))
    one, two = rng.uniform(0.5, 1.5, 2)
    weights = np.array([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *rng.uniform(0.5, 2, 6)])
    return weights[:, None] * wave


def make_index(strips):
    n = len(strips)
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: np.zeros((n, 16), np.uint8) for name in BYTE_COLUMNS}
    columns |= {"row": np.arange(n)[::-1].copy(), "patient": np.arange(n), "label_af": np.arange(n, dtype="f4")}
    columns["valid_start"] = np.array([s.valid_start for s in strips], "i4")[::-1]
    columns["valid_stop"] = np.array([s.valid_stop for s in strips], "i4")[::-1]
    return CohortIndex(columns, ("north",), ("ward",), ("cart",))


@pytest.fixture(scope="session")
def signals():
    return [ecg(seed) for seed in range(5)]


@pytest.fixture(scope="session")
def store(signals):
    """Rows stand in reverse order of the index."""
    strips = [make_strip(Recording("r", TWELVE_LEADS, 500.0, analog_mv=s), CAPE_V1, "auto") for s in signals]
    return FakeStore(make_index(strips), np.stack([s.samples for s in strips]))
