"""Memory of planning and committing many recordings, in bytes a recording: `make tables`.

    python tests/benchmarks/bench_planning.py [--save]

Headers as a scan would find them, made in memory; paths of 19 and of 57 characters, as PTB-XL's and MIMIC's. Each size in a
process of its own; a figure is the slope between two sizes of the most memory that was resident, as Linux counts it. The
commit gets made results of shards; it holds the plan and the whole index.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.append(str(Path(__file__).parent))
import corpus
import results

from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.ingest import commit
from ecgcohorts.ingest.plan import Partition, Plan, PlanHeader, Request
from ecgcohorts.ingest.planning import Known, make_plan
from ecgcohorts.preprocess.flags import QUALITY_COLUMNS
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.recording import DIGEST_BYTES, Recording
from ecgcohorts.sources import open_source
from ecgcohorts.sources.names import uri_of
from ecgcohorts.store.schema import FileEntry

FEW, MANY = 100_000, 400_000
MILLIONS = 5_200_000
PATHS = {
    "19 characters": "{folder:05d}/r{number:08d}.hea",
    "57 characters": "files/p{folder:04d}/p1000{patient:06d}/s4000{number:06d}/4000{number:06d}.hea",
}
TARGET = 150
KEY = PseudonymKey(b"k" * 32)
COLUMNS = ("what", "bytes a recording", "5.2 million, extrapolated", "target")


class MadeResult:
    """What the worker of a partition would have written about it."""

    def __init__(self, partition: Partition) -> None:
        self.rows = partition.rows
        self.outcome = np.zeros(self.rows, np.uint8)
        rng = np.random.default_rng(partition.number)
        self.digest = rng.integers(0, 256, (self.rows, DIGEST_BYTES), dtype=np.uint8)
        self.entry = FileEntry(size=1, sha256="0" * 64)

    def __len__(self) -> int:
        return self.rows

    def columns(self) -> dict[str, np.ndarray]:
        made = {"valid": np.full((self.rows, 2), 4000, np.int32), "flags": np.zeros(self.rows, np.uint32)}
        return made | {f"q_{name}": np.zeros(self.rows, dtype) for name, dtype in QUALITY_COLUMNS.items()}


def items(count: int, path: str) -> Iterator[SourceItem]:
    none, one = np.zeros((1, 0), np.int32), np.ones(1)
    for number in range(count):
        patient = number // 4
        fields = {"patient": str(patient), "age": "50", "sex": "Male", "date": "2010-01-01T10:00:00"}
        header = Recording("r", ("I",), 500.0, none, one, one, n_samples=5000, fields=fields)
        where = path.format(folder=number // 1000, patient=patient, number=number)
        yield SourceItem(where, "", header, state=str(number))


def made_plan(folder: Path, count: int, path: str) -> Plan:
    (folder / "large.yaml").write_text(corpus.SPEC)
    asked = Request(
        source=uri_of(folder), store=uri_of(folder / "s.zarr"), spec=CohortSpec.load(str(folder / "large.yaml")),
        recipe=CAPE_V1, shard_records=4096, quality=True, on_error="quarantine", key_fingerprint=KEY.fingerprint,
        generation=1, base="", versions={},
    )  # fmt: skip
    Found.scan = lambda *_: items(count, path)  # type: ignore[method-assign]
    return make_plan(asked, Found(asked.spec.layouts[0], open_source(folder)), KEY, Known())


def commit_made(folder: Path, plan: Plan) -> None:
    def whole(header: PlanHeader) -> list[MadeResult]:
        return [MadeResult(one) for one in header.partitions]

    commit._whole_results, commit._place_shards = whole, lambda *_: {}  # type: ignore[assignment]
    (folder / "s.zarr").mkdir()
    destination = SimpleNamespace(memory=folder / "memory", publish=lambda *_, **__: "")
    commit.commit(plan, None, destination)  # type: ignore[arg-type]


def peak_of(step: Callable[[], object]) -> tuple[object, int]:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak before
    made = step()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return made, 1024 * int(line.split()[1])


def peaks(pipe: Connection, count: int, path: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        plan, planning = peak_of(lambda: made_plan(Path(name), count, path))
        assert isinstance(plan, Plan)
        bare = plan.without_inputs()
        del plan
        pipe.send((planning, peak_of(lambda: commit_made(Path(name), bare))[1]))


def slopes(path: str) -> tuple[float, float]:
    found = []
    for count in (FEW, MANY):
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=peaks, args=(there, count, path))
        process.start()
        found.append(here.recv())
        process.join()
    (few_plan, few_commit), (many_plan, many_commit) = found
    return (many_plan - few_plan) / (MANY - FEW), (many_commit - few_commit) / (MANY - FEW)


def rows() -> Iterator[tuple[str, ...]]:
    for named, path in PATHS.items():
        for what, slope in zip(("planning", "committing"), slopes(path), strict=True):
            target = str(TARGET) if what == "planning" else ""
            yield f"{what}, paths of {named}", f"{slope:.0f}", f"{slope * MILLIONS / 1e6:.0f} MB", target


if __name__ == "__main__":
    # Millions of recordings make arrays that the allocator gives back at once; so must these, which are smaller.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 18))
    results.tell(__file__, COLUMNS, list(rows()), ("ecgcohorts", "numpy", "pyarrow"))
