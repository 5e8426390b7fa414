"""A store of seven recordings, small enough to count by hand."""

import hashlib
import json
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.io.place import Folder
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import Accounting, FileEntry, Manifest, Segment, signals_metadata
from ecgcohorts.store.writer import ShardWriter

NAN = np.nan
# cohort, patient, id known, age, sex, quality, label
RECORDINGS = [
    ("north", 0, True, 40.0, "male", 0, 1.0),
    ("north", 0, True, 41.0, "male", Flag.CLIPPED, 0.0),
    ("north", 0, True, 45.0, "male", 0, NAN),
    ("north", 1, True, 60.0, "female", Flag.CLIPPED | Flag.MAINS_50, 0.0),
    ("north", 2, False, 50.0, "female", 0, 0.0),
    ("south", 3, True, NAN, None, 0, NAN),
    ("south", 3, True, 80.0, "female", 0, NAN),
]
SITES, DEVICES = ("ward", "clinic"), ("cart",)  # north: site 0, device 0; others: site 1 and no device
SEXES = {"male": 0, "female": 1, None: -1}


@pytest.fixture(scope="session")
def recordings() -> list[tuple]:
    return list(RECORDINGS)


@pytest.fixture(scope="session")
def make_index() -> Callable[..., CohortIndex]:
    """Build an index from tuples like those of RECORDINGS; `empty` is a cohort of which nothing was stored."""

    def build(
        recordings: list[tuple] = RECORDINGS, cohorts: tuple[str, ...] = ("north", "south", "empty")
    ) -> CohortIndex:
        n = len(recordings)
        cohort, patient, known, age, sex, quality, label = zip(*recordings, strict=True) if n else [()] * 7
        columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
        columns |= {name: np.zeros((n, 16), np.uint8) for name in BYTE_COLUMNS}
        columns["recording_id"][:, 0] = np.arange(n) + 1
        columns |= {
            "row": np.arange(n),
            "cohort": np.array([cohorts.index(name) for name in cohort], np.int32),
            "patient": np.array(patient, np.int64),
            "patient_known": np.array(known, bool),
            "age": np.array(age, np.float32),
            "sex": np.array([SEXES[name] for name in sex], np.int8),
            "site": np.array([int(name != "north") for name in cohort], np.int32),
            "device": np.array([-int(name != "north") for name in cohort], np.int32),
            "quality": np.array([int(flags) for flags in quality], np.uint32),
            "valid_stop": np.full(n, 3200, np.int32),
            "label_af": np.array(label, np.float32),
        }
        return CohortIndex(columns, cohorts, SITES, DEVICES)

    return build


@pytest.fixture
def store(tmp_path: Path, make_index: Callable[..., CohortIndex]) -> Store:
    """Row r holds r + 1 mV in all leads for 8 s; three runs, one of which stored nothing."""
    home = tmp_path / "made.zarr"

    def segment(cohort: str, first_row: int, account: Accounting, licence: str = "") -> Segment:
        folder = home / "signals" / cohort / "000001"
        folder.mkdir(parents=True)
        (folder / "zarr.json").write_bytes(signals_metadata(account.stored, 8, CAPE_V1))
        with ShardWriter(folder / "c" / "0" / "0" / "0", 8, (8, 4000)) as shard:
            for row in range(first_row, first_row + account.stored):
                strip = np.full((8, 4000), -32768, np.int16)
                strip[:, :3200] = 1000 * (row + 1)
                shard.append(strip)
        return Segment(
            cohort=cohort,
            name="000001",
            first_row=first_row,
            rows=account.stored,
            shard_records=8,
            accounting=account,
            licence=licence,
            spec_sha256="0" * 64,
        )

    segments = (
        segment(
            "north", 0, Accounting(inputs=9, stored=5, duplicates=1, rejected={"too_short": 2, "truncated": 1}), "CC0"
        ),
        segment("south", 5, Accounting(inputs=2, stored=2, duplicates=0, rejected={})),
        segment("empty", 7, Accounting(inputs=4, stored=0, duplicates=0, rejected={"too_short": 4})),
    )
    index = make_index()
    shards = [f"{one.folder}/c/{number}/0/0" for one in segments for number in range(one.n_shards)]
    files = FileEntry.of_files(home, [*shards, *(f"{one.folder}/zarr.json" for one in segments)])
    rest = 1_500_000 - sum(entry.size for entry in files.values())
    manifest = Manifest(
        generation=1,
        recipe=CAPE_V1,
        key_fingerprint="0" * 16,
        segments=segments,
        cohorts=index.cohorts,
        sites=SITES,
        devices=DEVICES,
        index_columns=tuple(index.columns),
        versions={"numpy": "2.0"},
        files=files | {"signals/zarr.json": FileEntry(size=rest, sha256="0" * 64)},
    )
    (home / manifest.file_name).write_bytes(manifest.to_bytes())
    current = {"manifest": manifest.file_name, "sha256": hashlib.sha256(manifest.to_bytes()).hexdigest()}
    (home / "CURRENT").write_text(json.dumps(current))
    return Store(Folder(home), manifest, index, "f" * 64, pd.DataFrame({"reason": []}).to_parquet())


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tab of a headless browser, see browser.py; skips where no browser is installed."""
    spec = spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)  # pytest's importlib mode has no import by name for helper modules
    program = module.installed()
    if program is None:
        pytest.skip(f"no headless browser: none of {', '.join(module.NAMES)} is installed")
    with module.open_browser(program, tmp_path_factory.mktemp("browser")) as page:
        yield page
