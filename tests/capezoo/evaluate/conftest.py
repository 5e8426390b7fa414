"""Embeddings of made-up cohorts: what they tell of age, sex and cohort is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from capezoo.embedding.adapt import Adaptation
from capezoo.embedding.folder import EmbeddingInfo, Embeddings
from capezoo.evaluate.artefact.rendering import Material
from capezoo.evaluate.questions import Subject
from capezoo.specs import InputSpec
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.store import open_store

COHORTS = ("north", "south", "west")


def make_index(patients: int = 240, seed: int = 0) -> CohortIndex:
    """Per cohort: patients with one or two records, ages 20 to 85, some 90 and some unknown, some sexes unknown."""
    rng = np.random.default_rng(seed)
    per_patient = 1 + (np.arange(3 * patients) % 4 == 0)
    patient = np.repeat(np.arange(3 * patients), per_patient)
    n = len(patient)
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {"row": np.arange(n) * 2, "patient": patient, "cohort": (patient // patients).astype("i4")}
    age = rng.uniform(20, 85, 3 * patients)
    age[rng.random(len(age)) < 0.03] = 90
    age[rng.random(len(age)) < 0.03] = np.nan
    sex = rng.integers(0, 2, 3 * patients)
    sex[rng.random(len(sex)) < 0.03] = -1
    columns |= {"age": age[patient].astype("f4"), "sex": sex[patient].astype("i1")}
    columns |= {name: rng.integers(0, 256, (n, 16)).astype("u1") for name in BYTE_COLUMNS}
    columns["patient_id"] = rng.integers(0, 256, (3 * patients, 16)).astype("u1")[patient]
    return CohortIndex(columns, COHORTS)


@pytest.fixture(scope="session")
def make_embeddings() -> Callable[..., Embeddings]:
    """make_embeddings("z", shift=0.0): 12 units, two of which carry age and sex.

    With a shift, cohorts stand apart, and the unit that tells the sex does so in the first cohort only.
    """

    def make(name: str, shift: float = 0.0, patients: int = 240, seed: int = 0, **fields: str) -> Embeddings:
        index = make_index(patients)
        rng = np.random.default_rng(seed + 1)
        x = rng.normal(size=(len(index), 12))
        x[:, 0] += 2 * np.nan_to_num((index["age"] - 50) / 20)
        x[:, 1] += 3 * ((index["sex"] == 1) & ((shift == 0) | (index["cohort"] == 0)))
        for code in range(3):
            x[index["cohort"] == code, :2] += shift * code
            x[index["cohort"] == code, 2 + code] += shift
        info = make_info(name, index, 12, COHORTS) | fields
        return Embeddings(Path(name), EmbeddingInfo(**info), index, x.astype(np.float32))

    return make


@pytest.fixture(scope="session")
def embedded() -> Callable[..., Subject]:
    """embedded("x", features, cohort of each record, patients, rows): a subject with these features."""

    def make(
        name: str, x: np.ndarray, names: np.ndarray, patients: np.ndarray, rows: np.ndarray | None = None
    ) -> Subject:
        cohorts, codes = np.unique(names, return_inverse=True)
        # An index keeps the records of a patient together.
        order = np.argsort(patients, kind="stable")
        n = len(x)
        columns = {column: np.zeros(n, dtype) for column, dtype in COLUMNS.items()}
        columns |= {column: np.zeros((n, 16), np.uint8) for column in BYTE_COLUMNS}
        columns |= {"row": (np.arange(n) if rows is None else rows)[order], "patient": patients[order]}
        columns["cohort"] = codes[order].astype("i4")
        index = CohortIndex(columns, tuple(cohorts.tolist()))
        info = make_info(name, index, x.shape[1], index.cohorts)
        return Subject(Embeddings(Path(name), EmbeddingInfo(**info), index, x[order].astype(np.float32)))

    return make


def make_info(name: str, index: CohortIndex, width: int, cohorts: tuple[str, ...]) -> dict[str, object]:
    return {
        "name": name,
        "weights": "0" * 64,
        "card": None,
        "input": InputSpec(),
        "adaptation": Adaptation.of_recipe(InputSpec(), CAPE_V1, "store"),
        "store_fingerprint": "f" * 64,
        "records": len(index),
        "width": width,
        "columns": tuple(index.columns),
        "cohorts": cohorts,
        "sites": (),
        "devices": (),
        "data": "0" * 64,
    }


@pytest.fixture(scope="session")
def artefact_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with three stores of the same 36 people: filtered.zarr, "other key.zarr" and raw.zarr."""
    from ecgcohorts.ingest import IngestOptions, ingest
    from ecgcohorts.simulate import HOSPITALS, simulate

    folder = tmp_path_factory.mktemp("artefact")
    simulate(folder / "raw", patients_per_cohort=36, seed=4, hospitals=[HOSPITALS["north"]])
    for name, key, recipe in (("filtered", 1, "cape-v1"), ("other key", 2, "cape-v1"), ("raw", 1, "plain-500")):
        key_file = folder / f"key{key}"
        key_file.write_text(f"{key:02x}" * 32)
        key_file.chmod(0o600)
        source = folder / "raw" / "north"
        ingest(
            source,
            folder / f"{name}.zarr",
            str(source / "cohort.yaml"),
            IngestOptions(key_file=key_file, recipe=recipe),
        )
    return folder


@pytest.fixture(scope="session")
def artefact_materials(artefact_stores: Path) -> dict[str, Material]:
    """What the control makes of the stores, by their names."""
    names = ("filtered", "other key", "raw")
    return {name: Material.of(open_store(artefact_stores / f"{name}.zarr"), "north", mains_hz=50) for name in names}
