"""Commands as they are typed, killed at a random moment, and given again.

A command runs in a process forked from one that has imported the package, from the first line of its `main` on. It has
a process group of its own, which is killed with SIGKILL. Of a command with several processes every second time only
the first one is killed, or a worker of the Dask cluster that it uses.
"""

import importlib
import importlib.util
import os
import random
import signal
import sys
import time
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import forks
import services
from corpus import GONE, PLAN, STORE, Corpus, clear, snapshot, tree

from ecgcohorts.errors import EcgError

RUN, WEIGHTS = "run", "weights"
SHRINK = 0.85  # of the time over which a kill is drawn, with every attempt
TRIES = 30  # until a kill comes before the end
PATIENCE = 60.0  # seconds until a process that does not end is taken for stuck

_INGEST = "--shard 2 --no-quality --max-reject-frac 1"
_NORTH = f"ecgcohorts ingest {{raw}}/north {{store}} --cohort {{place}}/north.yaml {_INGEST}"
_SOUTH = "{raw}/south {store} --cohort {place}/south.yaml --shard 2 --no-quality"
_TINY = (
    "encoder.config.widths=[4,4] encoder.config.embedding_dim=6 encoder.config.kernel=8 encoder.config.stem_stride=4 "
    "sampler.groups=2 sampler.small_groups=drop optimiser.lr=1e-3 held_out.fraction=0 probes.patients=0 curves=false "
    "max_steps=12 checkpoint_every=3 log_every=1"
)
_PRETRAIN = "capezoo pretrain --store {store} --out {run} --seed 0 " + " ".join(f"--set {one}" for one in _TINY.split())


@dataclass(frozen=True)
class Row:
    """A command in a working folder. Words in braces stand for paths and addresses; told: the command in the table."""

    told: str
    start: str  # name of a folder to start from
    line: str
    before: tuple[str, ...] = ()  # commands that lead up to it
    also: str = ""  # killed every second time in place of the group: `first` process of it, `worker` of the cluster


ROWS = {
    "ingest": Row("`ingest` with one worker", "empty", _NORTH),
    "ingest -j": Row("`ingest -j 2`", "empty", f"{_NORTH} -j 2", also="first"),
    "ingest on Dask": Row("`ingest --scheduler`", "empty", f"{_NORTH} --scheduler {{dask}}", also="worker"),
    "append": Row("`ingest` into a store with another cohort", "north", f"ecgcohorts ingest {_SOUTH} {_INGEST}"),
    "update": Row(
        "`ingest --update` after the source changed",
        "both",
        f"ecgcohorts ingest {{raw}}/north-now {{store}} --cohort {{place}}/north.yaml {_INGEST} --update",
    ),
    "remove": Row("`remove`", "both", f"ecgcohorts remove {{store}} north {GONE}"),
    "compact": Row("`compact`", "both", "ecgcohorts compact {store}"),
    "label": Row(
        "`label`", "both", "ecgcohorts label {store} {place}/table.csv --cohort north --id-column id --column ef"
    ),
    "split": Row("`split`", "both", "ecgcohorts split {store} later --by patient --part a=0.5 --part b=0.5"),
    "copy": Row("`copy` of a folder to an S3 bucket", "north", "ecgcohorts copy {store} {bucket}/t.zarr"),
    "commit": Row(
        "`commit` of a plan",
        "north",
        "ecgcohorts commit {plan} --max-reject-frac 1",
        before=(
            f"ecgcohorts plan {_SOUTH} -o {{plan}}",
            *(f"ecgcohorts encode {{plan}} --partition {n} --max-reject-frac 1" for n in "012"),
        ),
    ),
    "pretrain": Row("`capezoo pretrain`, 12 steps, a checkpoint every 3", "both", _PRETRAIN),
    "publish": Row("`capezoo publish`", "trained", "capezoo publish {run} {weights} --store {store} --digests plain"),
}


# Starting states beyond those of the corpus: what each starts from, and the command that makes it.
STATES = {"trained": ("both", "pretrain"), "published": ("trained", "publish")}


@dataclass(frozen=True)
class Reference:
    """What undisturbed runs of a command start from, take and leave."""

    name: str
    seconds: float
    first_change: float  # seconds after which something changed in the working folder; 0 if nothing ever did
    codes: tuple[int, int]  # exit codes of the command and of the same one once more
    snapshots: tuple[str, str]  # fingerprints before and after; empty where no store is
    start: dict[str, str]
    expected: dict[str, str]


class Site:
    """Corpus, Dask cluster and bucket, of which those that were asked for are there."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.cluster: services.Cluster | None = None
        self.bucket = ""

    @contextmanager
    def ready_for(self, row: Row) -> Iterator[None]:
        """Start what the command talks to, for as long as it is entered."""
        with ExitStack() as stack:
            if "{dask}" in row.line:
                self.cluster = stack.enter_context(services.cluster())
            if "{bucket}" in row.line:
                self.bucket = stack.enter_context(services.bucket())
            yield

    def words(self, line: str, work: Path) -> list[str]:
        """The words of a command in a working folder."""
        corpus = self.corpus
        values = {"raw": corpus.raw, "place": corpus.place, "store": work / STORE, "plan": work / PLAN}
        values |= {"run": work / RUN, "weights": work / WEIGHTS}
        return line.format(
            **values, dask=self.cluster and self.cluster.address, bucket=f"{self.bucket}/{work.name}"
        ).split()

    def begin(self, row: Row, work: Path) -> None:
        """Make the working folder of a trial."""
        clear(work)
        self.corpus.fresh(row.start, work)
        if self.cluster is not None:
            self.cluster.wait()
        if row.before:
            log = work.with_name(f"{work.name}.log")
            codes = forks.in_child(lambda: [run(self.words(line, work), log) for line in row.before])
            assert not any(codes), f"{codes}: {log.read_text()}"

    def command(self, line: str, work: Path) -> "_Command":
        """Start a command in a working folder."""
        return _Command(self.words(line, work), work.with_name(f"{work.name}.log"))

    def rehearse(self, row: Row, work: Path) -> int:
        """Run a command in this process, which imports all that it needs."""
        self.begin(row, work)
        return run(self.words(row.line, work), work.with_name(f"{work.name}.log"))

    def left(self, row: Row, work: Path) -> dict[str, str]:
        """All that there is in the working folder, and below its name in the bucket."""
        found = tree(work)
        if "{bucket}" in row.line:
            found |= {f"bucket/{name}": tag for name, tag in services.objects(f"{work.name}/").items()}
        return found


class _Command(forks.Child):
    """A running command, first of a process group. log: file for what it prints."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.name, self._log = " ".join(words[:2]), log
        super().__init__(lambda: run(words, log))
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(self.pid, self.pid)  # here and in the child: either may be first

    def end(self) -> int | str:
        """Its exit code, or how it died."""
        try:
            code: int | str = self.answer()
        except forks.Died as death:
            code = "killed" if death.code == -signal.SIGKILL else str(death)
        self.last_line = (self._log.read_text().splitlines() or [""])[-1] if self._log.exists() else ""
        self._log.unlink(missing_ok=True)
        return code

    def must_end_well(self) -> None:
        code = self.end()
        assert code == 0, f"{self.name}: ended with {code}, {self.last_line}"

    def has_ended(self) -> bool:
        # It stays unwaited for, so that its number belongs to nobody else while it is killed.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def run(words: list[str], log: Path) -> int:
    """Run a command in this process as its console script does. Returns its exit code."""
    os.setpgid(0, 0)
    program = importlib.import_module(f"{words[0]}.cli.program")
    # Spawned workers import the main module of the process that starts them: that of the command, not that of the soak.
    main = types.ModuleType("__main__")
    main.__spec__ = importlib.util.find_spec(f"{words[0]}.cli.__main__")
    sys.modules["__main__"] = main
    to = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(to, 1)
    os.dup2(to, 2)
    try:
        program.main(words[1:])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def undisturbed(site: Site, name: str, work: Path, runs: int) -> Reference:
    """Run a command a few times, and once more: that must change nothing."""
    row, seconds, first_changes, left = ROWS[name], list[float](), list[float](), list[dict[str, str]]()
    for number in range(runs):
        place = work.with_name(f"{work.name}-{number}")
        site.begin(row, place)
        start, before = site.left(row, place), _fingerprint(place)
        command = site.command(row.line, place)
        took, first_change = _watched(command, place)
        command.must_end_well()
        seconds.append(took)
        first_changes.append(first_change)
        left.append(site.left(row, place))
        assert left[-1] == left[0], f"{name}: run anew, it left {sorted(left[-1].items() ^ left[0].items())[:4]}"
        if number == runs - 1:
            again = site.command(row.line, place).end()
            assert site.left(row, place) == left[0], f"{name}: run again, it changed something"
            snapshots = before, _fingerprint(place)
            return Reference(name, max(seconds), min(first_changes), (0, again), snapshots, start, left[0])
        clear(place)
    raise AssertionError("no runs")


def _watched(command: _Command, work: Path) -> tuple[float, float]:
    """Seconds until a command ends, and until it first changes something below the working folder."""
    begun, before, first_change = time.monotonic(), _changes(work), 0.0
    while not command.has_ended():
        time.sleep(0.005)
        if not first_change and _changes(work) != before:
            first_change = time.monotonic() - begun
    return time.monotonic() - begun, first_change


def _changes(work: Path) -> list[int]:
    """Of every folder, when a name in it last came or went."""
    found = []
    for folder, _, _ in os.walk(work):
        with suppress(FileNotFoundError):
            found.append(os.stat(folder).st_mtime_ns)
    return found


def _fingerprint(work: Path) -> str:
    """Of the snapshot in force, which has to be whole; in a child, as it starts threads."""
    found = forks.in_child(lambda: {"fingerprint": snapshot(work / STORE)})
    if isinstance(found, str):
        raise EcgError(found)
    return str(found["fingerprint"])


@dataclass
class Killed:
    """What came of a trial. when: whether the kill came before the command had changed anything, or after all changes."""

    when: str = ""
    problems: list[str] = field(default_factory=list)


def killed(site: Site, reference: Reference, number: int, work: Path) -> Killed:
    """Run a command, kill it at a random moment, look at what is there, and run it again."""
    row, draw = ROWS[reference.name], random.Random(f"{reference.name} {number}")
    whom = row.also if number % 2 else ""
    for attempt in range(TRIES):
        place = work.with_name(f"{work.name}-{attempt}")
        site.begin(row, place)
        before = _changes(place)
        command = site.command(row.line, place)
        # Shorter with every attempt: it took longer undisturbed if the machine was busier then.
        share = draw.uniform(0, SHRINK**attempt)
        if number % 4 > 1:
            # Every second pair of kills where it hurts: many a command reads longer than it writes.
            if reference.first_change:
                _wait_for_a_change(command, place, before)
            time.sleep(share * (reference.seconds - reference.first_change))
        else:
            time.sleep(share * reference.seconds)
        is_late = command.has_ended()
        if not is_late:
            _kill(site, command, whom, draw.random())
        end = command.end()
        try:
            # A command whose worker died may end well. Any other that answered was on its way out when it was killed.
            if not is_late and (whom == "worker" or isinstance(end, str)):
                return _afterwards(site, reference, command, end, place)
        finally:
            clear(place)
    return Killed(problems=[f"it ended before each of {TRIES} kills"])


def _wait_for_a_change(command: _Command, work: Path, before: list[int]) -> None:
    while not command.has_ended() and _changes(work) == before:
        time.sleep(0.002)


def _kill(site: Site, command: _Command, whom: str, which: float) -> None:
    if whom == "worker" and site.cluster is not None:
        site.cluster.kill_worker(which)
    elif whom == "first":
        os.kill(command.pid, signal.SIGKILL)
    else:
        os.killpg(command.pid, signal.SIGKILL)


def _afterwards(site: Site, reference: Reference, command: _Command, end: int | str, work: Path) -> Killed:
    row, result = ROWS[reference.name], Killed()
    # It may give up when its worker dies, and is then given again.
    if end not in ("killed", 0, 2):
        result.problems.append(f"it ended with {end}, expected a kill: {command.last_line}")
    left = site.left(row, work)
    whole = left == reference.expected
    result.when = "before" if left == reference.start else "after" if whole else "during"
    result.problems += _half_done(reference, left, work)
    again = site.command(row.line, work)
    code = again.end()
    # What was finished before the kill may be refused, as an undisturbed command is when it is given once more.
    if code != reference.codes[0] and not (whole and code == reference.codes[1]):
        result.problems.append(f"given again, it ended with {code}, expected {reference.codes[0]}: {again.last_line}")
    _wait_for_the_end_of(command.pid)
    left = site.left(row, work)
    wrong = sorted({name for name, _ in left.items() ^ reference.expected.items()})
    if wrong:
        result.problems.append(f"other than undisturbed: {', '.join(wrong[:5])}")
    return result


def _half_done(reference: Reference, left: dict[str, str], work: Path) -> list[str]:
    """What shows as finished after a kill and is not: a snapshot in force, published weights, a copy."""
    try:
        found = _fingerprint(work)
    except EcgError as error:
        return [f"after the kill: {error}"]
    problems = [] if found in reference.snapshots else [f"found the snapshot {found or 'none'} in force"]
    for sign, folder in ((f"{WEIGHTS}", f"{WEIGHTS}/"), ("bucket/t.zarr/CURRENT", "bucket/")):
        if sign in left:
            whole = {name: one for name, one in reference.expected.items() if name.startswith(folder)}
            missing = [name for name, one in whole.items() if left.get(name) != one]
            problems += [f"{sign} is there, but not {missing[0]}"] if missing else []
    return problems


def _wait_for_the_end_of(group: int) -> None:
    """Of workers without a parent, which end by themselves."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
