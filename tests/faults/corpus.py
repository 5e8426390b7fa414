"""Two tiny raw cohorts, and every command that writes to a store, each with what it starts from and what it ends in.

Between them they have several shards, a copy, a recording that is refused when it is planned and one when it is read,
a patient with recordings in two segments, and a kept split.
"""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import victims

import ecgcohorts as ec
from ecgcohorts.errors import StoreError
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, commit_plan, encode_partition, ingest, plan_to_file
from ecgcohorts.ingest.plan import AnyPlan, PlanHeader
from ecgcohorts.store import save_split
from ecgcohorts.store.upkeep.compact import compact
from ecgcohorts.store.upkeep.garbage import collect_garbage
from ecgcohorts.store.upkeep.labels import add_labels
from ecgcohorts.store.upkeep.remove import remove_patient

raw = victims.load_file(victims.TESTS / "ecgcohorts" / "conftest.py")

OPTIONS = IngestOptions(shard_records=2, quality=False)
STORE, PLAN = "s.zarr", "run.plan"
CANARY = "CANARY"  # in every id and file name
LABELLED, GONE = "CANARYREC1v0", "CANARYPAT1"
# What has to come of every ingest, in this order: inputs, stored, duplicates, rejected.
ACCOUNTS = (
    ("north", 7, 6, 0, {"bad_header": 1}),
    ("south", 6, 3, 1, {"bad_header": 1, "too_short": 1}),
    ("north", 1, 1, 0, {}),
)


@dataclass(frozen=True)
class Command:
    """A command in a working folder, `work/s.zarr` its store; run again after a fault it has to finish."""

    name: str
    start: str  # name of a folder to start from
    run: Callable[["Corpus", Path], object]


class Corpus:
    """The inputs in a folder, and beside them the states that commands start from."""

    def __init__(self, place: Path) -> None:
        self.place, self.raw, self.table = place, place / "raw", place / "table.csv"

    def make(self) -> None:
        """Write the inputs, and run the commands that make the starting states."""
        north, south = self.cohort("north", 3), self.cohort("south", 2)
        for cohort in (north, south):
            (cohort.folder / "CANARYJUNK.hea").write_text("CANARY\n")
        samples = next(iter(south.signals.values()))
        add(south, "CANARYCOPY", samples, 8, 0)
        add(south, "CANARYSHORT", samples[:, :500], 9, 0)
        add(raw.RawCohort(self.raw / "later", north.spec), "CANARYREC1v5", raw.beats(5), 1, 5)
        self.change(north)
        self.table.write_text(f"id,ef\n{LABELLED},55\n")
        for name in ("empty", "north"):
            (self.place / name).mkdir()
        self.ingest("north", self.place / "north" / STORE)
        store = self.fresh("north", self.place / "both") / STORE
        self.ingest("south", store)
        ingest(self.raw / "later", store, str(north.spec), OPTIONS)
        save_split(store, splits.by_patient(ec.open(store).index, {"train": 0.5, "test": 0.5}, "kept"))
        assert accounts(store) == ACCOUNTS, accounts(store)

    def cohort(self, name: str, patients: int) -> Any:
        """Write a cohort: patient 0 has one recording, patient 1 two, and so on."""
        cohort = raw.RawCohort(self.raw / name, self.place / f"{name}.yaml")
        cohort.spec.parent.mkdir(parents=True, exist_ok=True)
        cohort.spec.write_text(raw.COHORT_YAML.format(name=name))
        for patient in range(patients):
            for visit in range(1 + patient):
                samples = raw.beats(100 * patients + 10 * patient + visit)
                add(cohort, f"CANARYREC{patient}v{visit}", samples, patient, visit)
        return cohort

    def change(self, north: Any) -> None:
        """Write what the source of north says later: an age, a recording with other samples, one whole that was refused."""
        now = raw.RawCohort(self.raw / "north-now", north.spec)
        shutil.copytree(north.folder, now.folder)
        add(now, "CANARYREC0v0", north.signals["CANARYREC0v0"], 0, 3)
        add(now, "CANARYREC2v1", raw.beats(77), 2, 1)
        add(now, "CANARYJUNK", raw.beats(78), 2, 7)

    def fresh(self, start: str, work: Path) -> Path:
        """A working folder that holds a starting state."""
        return shutil.copytree(self.place / start, work)

    def ingest(self, cohort: str, store: Path, options: IngestOptions = OPTIONS) -> object:
        return ingest(self.raw / cohort, store, str(self.place / f"{cohort}.yaml"), options)


def add(cohort: Any, name: str, samples: Any, patient: int, visit: int) -> None:
    comments = {
        "Patient ID": f"CANARYPAT{patient}",
        "Date": f"20{10 + visit}-03-01T10:00:00",
        "Age": str(30 + patient + visit),
    }
    cohort.add(name, samples, **comments, Sex=("Male", "Female")[patient % 2], AF=str(patient % 2))


def _first(corpus: Corpus, work: Path) -> object:
    return corpus.ingest("north", work / STORE)


def _append(corpus: Corpus, work: Path) -> object:
    return corpus.ingest("south", work / STORE)


def _steps(corpus: Corpus, work: Path) -> object:
    """In three steps, as a script on a cluster has them: what is committed is not planned again."""
    plan = work / PLAN
    if "south" not in ec.open(work / STORE).manifest.cohorts:
        for part in make_plan(corpus, work).partitions:
            encode_partition(plan, part.number)
    return commit_plan(plan)


def make_plan(corpus: Corpus, work: Path) -> PlanHeader:
    """The plan of the cohort south, into `work/run.plan`."""
    return plan_to_file(corpus.raw / "south", work / STORE, str(corpus.place / "south.yaml"), work / PLAN, OPTIONS)


def _label(corpus: Corpus, work: Path) -> object:
    return add_labels(work / STORE, corpus.table, "north", id_column="id", columns=["ef"])


def _remove(corpus: Corpus, work: Path) -> object:
    return remove_patient(work / STORE, "north", GONE)


def _compact(corpus: Corpus, work: Path) -> object:
    return compact(work / STORE)


def _gc(corpus: Corpus, work: Path) -> object:
    return collect_garbage(work / STORE)


def _split(corpus: Corpus, work: Path) -> object:
    index = ec.open(work / STORE).index
    return save_split(work / STORE, splits.by_patient(index, {"a": 0.5, "b": 0.5}, "later"))


COMMANDS = {
    one.name: one
    for one in (
        Command("ingest, first", "empty", _first),
        Command("ingest, more", "north", _append),
        Command("plan, encode, commit", "north", _steps),
        Command("label", "both", _label),
        Command("remove", "both", _remove),
        Command("compact", "both", _compact),
        Command("gc", "both", _gc),
        Command("save a split", "both", _split),
    )
}


def tree(folder: Path) -> dict[str, str]:
    """Every folder, and every file by its SHA-256; of a plan, which names its folder, only that it is whole.

    Of a run's log and status, what tells neither time nor process; of a checkpoint, the numbers: how its strings refer to each
    other tells whether the run was resumed.
    """
    return {path.relative_to(folder).as_posix(): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> str:
    if path.is_dir():
        return "folder"
    if path.name == PLAN:
        return AnyPlan.open(path).header.spec.name
    if path.suffix == ".pt" or path.name.endswith(".pt.sha256"):
        return _checkpoint(path)
    content = STEADY[path.name](path.read_text()) if path.name in STEADY else path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _checkpoint(path: Path) -> str:
    """What a checkpoint and its digest hold, if they belong together: asked of both."""
    from capezoo.errors import CheckpointDamaged
    from capezoo.training import checkpoint  # torch, for these alone

    try:
        state = checkpoint.read(path.with_name(path.name.removesuffix(".sha256")))
    except CheckpointDamaged:
        return "unfinished"
    total = hashlib.sha256()
    _add(total, state)
    return total.hexdigest()


def _add(total: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            total.update(f"{key!r}:".encode())
            _add(total, one)
    elif isinstance(value, list | tuple):
        total.update(f"{len(value)} of:".encode())
        for one in value:
            _add(total, one)
    else:
        # A tensor; anything else is a plain value.
        is_tensor = hasattr(value, "numpy")
        total.update(
            f"{value.dtype} {value.shape}".encode() + value.numpy().tobytes() if is_tensor else repr(value).encode()
        )


def _steady_rows(text: str) -> bytes:
    rows = csv.DictReader(io.StringIO(text))
    return repr([{name: one for name, one in row.items() if name not in TIMES} for row in rows]).encode()


def _steady_status(text: str) -> bytes:
    return repr({name: one for name, one in json.loads(text).items() if name not in TIMES}).encode()


TIMES = ("ecg_per_s", "wait_share", "seconds_left", "written", "process")
STEADY = {"metrics.csv": _steady_rows, "status.json": _steady_status}


def snapshot(store: Path) -> str:
    """Fingerprint of the snapshot in force, every file of which holds what it must; empty where no store is.

    Raises StoreError where one is, and does not open or is damaged.
    """
    if not (store / "CURRENT").exists():
        return ""
    opened = ec.open(store)
    for name, entry in opened.manifest.files.items():
        if hashlib.sha256((store / name).read_bytes()).hexdigest() != entry.sha256:
            raise StoreError(f"{name}: damaged")
    opened.read(opened.index["row"])
    return opened.fingerprint


def accounts(store: Path) -> tuple[tuple[str, int, int, int, dict[str, int]], ...]:
    """Of every segment: cohort, inputs, stored, duplicates, rejected."""
    found = [(one.cohort, one.accounting) for one in ec.open(store).segments]
    return tuple((name, one.inputs, one.stored, one.duplicates, one.rejected) for name, one in found)


def clear(folder: Path) -> None:
    """Delete a folder of a trial, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
