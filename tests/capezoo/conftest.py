"""A real store of two simulated hospitals, made once, and a run trained on it for a moment."""

from pathlib import Path

import pytest

from capezoo.specs import EncoderSpec, HeldOutSpec, OptimiserSpec, ProbeSpec, RunConfig, SamplerSpec


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
    from capezoo.train import pretrain
    from ecgcohorts.store import open_store

    config = RunConfig(
        name="tiny_x",
        seed=7,
        encoder=EncoderSpec(config={"widths": [8, 8], "embedding_dim": 12, "stem_stride": 4, "kernel": 8}),
        sampler=SamplerSpec(name="patient_pairs", pairs=8),
        optimiser=OptimiserSpec(lr=1e-3),
        held_out=HeldOutSpec(fraction=0.2, every_steps=2, batches_per_cohort=1),
        max_steps=4,
        log_every=1,
        probes=ProbeSpec(patients=0),
        curves=False,
    )
    return pretrain(open_store(simulated / "store.zarr"), config, simulated / "run", progress=lambda report: None)
