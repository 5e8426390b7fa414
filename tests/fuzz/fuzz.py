"""Attack readers with mutants of their fixtures: only UnreadableRecording may come out, in time and within memory.

    python tests/fuzz/fuzz.py scp edf            2,000 mutants of each format
    python tests/fuzz/fuzz.py --mutants 200000 --jobs 2 --work build/fuzz --results docs/data/fuzz.json
    python tests/fuzz/fuzz.py --replay build/fuzz/crashers/scp-17

Without names, all readers that are registered. A mutant is named by format, seed and number, and is the same on every
machine. Each block of mutants runs in a process of its own, with limits; a mutant that kills it is a crasher like one
that raises another error, and the block goes on behind it. With --work, finished blocks are kept, so that a stopped run
goes on where it was; they count only as long as readers, writers and this code are unchanged.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import guard
import victims
from mutate import Victim

from ecgcohorts import plugins, readers
from ecgcohorts.errors import UnreadableRecording
from ecgcohorts.io import regular

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))  # per mutant; less in tests of this file
EXTRA_MEMORY = 512 * guard.MEGABYTE
BLOCK = 5000  # mutants a process tries
SILENCE = 4 * SECONDS  # seconds without progress after which a process is ended from outside: C code hears no alarm


@dataclass
class Tally:
    """What came of a number of mutants of one format. A mutant is refused if `read` refuses it."""

    mutants: int = 0
    refused: int = 0
    read: int = 0
    slowest_ms: float = 0.0
    peak_mb: float = 0.0  # memory beyond that of the process before the first mutant
    reasons: dict[str, int] = field(default_factory=dict)
    crashers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.mutants += other.mutants
        self.refused += other.refused
        self.read += other.read
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.reasons = dict((Counter(self.reasons) + Counter(other.reasons)).most_common())
        self.crashers += other.crashers

    @classmethod
    def from_json(cls, text: str) -> "Tally":
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(vars(self))


class Attack:
    """The victims of one format in a scratch folder, and how mutant after mutant is tried on its reader."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        self.name, self.seed = name, seed
        self.reader: ModuleType = plugins.load(readers.KIND, name)  # itself, even where it is ISOLATED otherwise
        fixtures = victims.fixtures(name, folder)
        self.mend: Callable[[bytes], bytes] | None = getattr(victims.writer_of(name), "mend", None)
        self.targets = [(fixture, file, Victim(file.read_bytes())) for fixture in fixtures for file in fixture.files]

    def place(self, number: int) -> tuple[victims.Fixture, Path, Victim, bytes]:
        """Fixture, file to damage, the intact one and the mutant of a number."""
        turn, place = divmod(number, len(self.targets))
        fixture, file, victim = self.targets[place]
        mutant = victim.mutant(f"{self.name} {self.seed} {number}")
        return fixture, file, victim, self.mend(mutant) if self.mend and turn % 4 else mutant

    def warm_up(self) -> None:
        """Read every fixture whole, so that what is imported late is there before the watch begins."""
        for fixture in {target[0] for target in self.targets}:
            for call in (self.reader.scan, self.reader.read):
                try:
                    list(call(fixture.path))
                except UnreadableRecording as error:
                    raise AssertionError(f"{self.name}: the fixture {fixture.name} is not read: {error}") from error

    def try_one(self, number: int, watch: guard.Watch, tally: Tally) -> None:
        fixture, file, victim, mutant = self.place(number)
        file.write_bytes(mutant)
        tally.mutants += 1
        problem, outcome = "", "read"
        start = time.perf_counter()
        for call in (self.reader.scan, self.reader.read):
            watch.start(fixture.path.parent)
            try:
                with guard.deadline(SECONDS):
                    for recording in call(fixture.path):
                        check(recording)
                outcome = "read"
            except UnreadableRecording as error:
                outcome = str(error.reason)
            except guard.TookTooLong as error:
                problem = f"TookTooLong: {error}"
            except Exception as error:
                problem = "".join(traceback.format_exception(error)[-3:]).strip()
            acts = watch.stop()
            problem = problem or "; ".join(acts)
        tally.slowest_ms = max(tally.slowest_ms, 1000 * (time.perf_counter() - start))
        if problem:
            tally.crashers.append({"mutant": number, "error": problem[-1500:]})
        elif outcome == "read":
            tally.read += 1
        else:
            tally.refused += 1
            tally.reasons[outcome] = tally.reasons.get(outcome, 0) + 1
        file.write_bytes(victim.data)


def check(recording: Any) -> None:
    """What every recording promises, whatever file it came from."""
    samples = recording.digital if recording.digital is not None else recording.analog_mv
    assert samples.ndim == 2, samples.shape
    assert len(samples) == len(recording.leads), "leads and rows differ"
    assert 0 < recording.rate_hz < float("inf"), recording.rate_hz
    assert recording.source is not None


def work(name: str, seed: int, first: int, count: int, progress: Path) -> Tally:
    """Try mutants in this process, under limits. `progress` always tells which is being tried, and the tally before."""
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as scratch, progress.open("wb") as file:
        attack = Attack(name, seed, Path(scratch))
        attack.warm_up()
        watch = guard.Watch()
        os.chdir(scratch)
        guard.limit_memory(EXTRA_MEMORY)
        before = guard.peak_bytes()
        tally = Tally()
        for number in range(first, first + count):
            file.seek(0)
            file.write(f"{number} {tally.to_json()}\n".encode())
            file.flush()
            attack.try_one(number, watch, tally)
        tally.peak_mb = (guard.peak_bytes() - before) / guard.MEGABYTE
        os.chdir("/")
    return tally


def run_block(name: str, seed: int, first: int, count: int) -> Tally:
    """The tally of a block, in processes of their own; one that dies is followed by another, behind its mutant."""
    total, stop = Tally(), first + count
    with tempfile.TemporaryDirectory() as folder:
        progress, answer = Path(folder) / "progress", Path(folder) / "answer.json"
        while first < stop:
            command = [sys.executable, "-W", "error", __file__, "--work-on", name, str(seed), str(first)]
            command += [str(stop - first), str(progress), str(answer)]
            problem = _wait(command, progress)
            if answer.is_file():
                total.add(Tally.from_json(answer.read_text()))
                break
            if not progress.is_file() or not progress.stat().st_size:
                raise RuntimeError(f"{name}: {problem}")
            number, before = progress.read_text().splitlines()[0].split(" ", 1)
            total.add(Tally.from_json(before))
            total.add(Tally(mutants=1, crashers=[{"mutant": int(number), "error": problem[-1500:]}]))
            progress.unlink()
            first = int(number) + 1
    return total


def _wait(command: list[str], progress: Path) -> str:
    """Wait for a process while it makes progress; how it ended."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stderr=errors, env=environment)
        seen, since, why = b"", time.monotonic(), ""
        while process.poll() is None:
            time.sleep(0.05)
            now = progress.read_bytes()[:20] if progress.is_file() else b""
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > SILENCE * (1 if seen else 6):
                process.kill()
                why = f"no progress for {SILENCE:g} s; "
        errors.seek(0)
        return f"{why}exit status {process.returncode}; {errors.read()[-1000:]}"


def keep_crashers(name: str, seed: int, tally: Tally, folder: Path) -> None:
    """Write every crashing mutant, with what lies beside it, where `--replay` finds it."""
    if not tally.crashers:
        return
    with tempfile.TemporaryDirectory() as scratch:
        attack = Attack(name, seed, Path(scratch))
        for crasher in tally.crashers:
            fixture, file, victim, mutant = attack.place(crasher["mutant"])
            file.write_bytes(mutant)
            target = folder / f"{name}-{crasher['mutant']}"
            shutil.copytree(fixture.path.parent, target, dirs_exist_ok=True)
            about = {"format": name, "path": fixture.path.name, "damaged": file.name, "seed": seed, **crasher}
            (target / "crasher.json").write_text(json.dumps(about, indent=1))
            file.write_bytes(victim.data)


def replay(folder: Path) -> bool:
    """Read a kept crasher again; True if it is refused or read now."""
    about = json.loads((folder / "crasher.json").read_text())
    reader = plugins.load(readers.KIND, about["format"])
    for call in (reader.scan, reader.read):
        try:
            with guard.deadline(SECONDS):
                print(f"{call.__name__}: {len(list(call(folder / about['path'])))} recordings")
        except UnreadableRecording as error:
            print(f"{call.__name__}: refused, {error}")
        except (Exception, guard.TookTooLong):
            traceback.print_exc()
            return False
    return True


def code_digest(name: str) -> str:
    """Of everything that decides what a block finds."""
    reader = Path(str(plugins.load(readers.KIND, name).__file__))
    sources = {reader, *Path(str(readers.__file__)).parent.rglob("*.py"), *Path(__file__).parent.glob("*.py")}
    sources |= {Path(str(regular.__file__)), Path(str(victims.writer_of(name).__file__))}
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def fuzz(name: str, mutants: int, seed: int, jobs: int, kept: Path | None) -> Tally:
    """Try `mutants` mutants of one format; with `kept`, go on from finished blocks there."""
    blocks = [(first, min(BLOCK, mutants - first)) for first in range(0, mutants, BLOCK)]
    digest = code_digest(name)

    def block(place: tuple[int, int]) -> Tally:
        file = kept / f"{name}-{digest}-{seed}-{place[0]}-{place[1]}.json" if kept else None
        if file and file.is_file():
            return Tally.from_json(file.read_text())
        tally = run_block(name, seed, *place)
        if file:
            unfinished = file.with_suffix(".part")
            unfinished.write_text(tally.to_json())
            unfinished.replace(file)
        return tally

    total = Tally()
    with ThreadPoolExecutor(jobs) as pool:
        for tally in pool.map(block, blocks):
            total.add(tally)
    return total


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    lines = ["| format | mutants | refused | read | crashed | slowest | memory |", "|---|---|---|---|---|---|---|"]
    for name, found in results.items():
        counts = [f"{found[key]:,}" for key in ("mutants", "refused", "read")]
        crashed = str(len(found["crashers"]))
        measures = [f"{found['slowest_ms']:.0f} ms", f"{found['peak_mb']:.0f} MB"]
        lines.append("| " + " | ".join([name, *counts, crashed, *measures]) + " |")
    return "\n".join(lines)


def main() -> int:
    if sys.argv[1:2] == ["--work-on"]:
        name, seed, first, count, progress, answer = sys.argv[2:]
        tally = work(name, int(seed), int(first), int(count), Path(progress))
        Path(answer).write_text(tally.to_json())
        return 0
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", help="formats; all, if none is named")
    parser.add_argument("--mutants", type=int, default=2000, help="of each format")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--work", type=Path, help="folder for finished blocks and for crashers")
    parser.add_argument("--results", type=Path, help="JSON file that the documentation takes its table from")
    parser.add_argument("--replay", type=Path, help="read a kept crasher again")
    options = parser.parse_args()
    if options.replay:
        return 0 if replay(options.replay) else 1
    results: dict[str, Any] = {}
    kept = options.work / "blocks" if options.work else None
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
    for name in options.names or victims.NAMES:
        tally = fuzz(name, options.mutants, options.seed, options.jobs, kept)
        results[name] = vars(tally)
        if options.work:
            keep_crashers(name, options.seed, tally, options.work / "crashers")
        for crasher in tally.crashers[:20]:
            print(f"{name}, mutant {crasher['mutant']}: {crasher['error'].splitlines()[-1]}", file=sys.stderr)
    print(table(results))
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(found["crashers"] for found in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
