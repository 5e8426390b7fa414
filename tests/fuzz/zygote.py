"""A process that has imported every reader and forks one child per hostile file, so that each is measured from fresh.

Requests come as lines of JSON on standard input: `{"module": ..., "case": ..., "folder": ...}`; each is answered by a
line: `{"path": ..., "calls": {call: what came of it}}`. The file is made in a child too: what making it takes counts
for nothing.
"""

import gc
import importlib
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import guard
import victims

import ecgcohorts as ec
from ecgcohorts import plugins, readers
from ecgcohorts.errors import UnreadableRecording

DEADLINE = 20.0  # seconds on the clock; the limits that count are in test_hostile.py
ADDRESS_SPACE = 2048 * guard.MEGABYTE  # far above what is allowed: a file must not bring the machine down
WATCH = guard.Watch()


def readers_for(module: str) -> tuple[str, ...]:
    """Readers that a module of hostile files is meant for, by its name: one, all that read XML, or all."""
    module = module.removeprefix("_")
    if module in victims.NAMES:
        return (module,)
    if module == "xml":
        return tuple(name for name in victims.NAMES if ".xml" in plugins.load(readers.KIND, name).SUFFIXES)
    return victims.NAMES


def called(module: str, path: Path) -> tuple[str, ...]:
    """Of these readers, those that are called themselves: all, or of a large file those that take it for theirs."""
    names = readers_for(module)
    if len(names) == 1 or not path.is_file() or path.stat().st_size < guard.MEGABYTE:
        return names
    with path.open("rb") as file:
        head = file.read(readers.HEAD_BYTES)
    return tuple(name for name in names if plugins.load(readers.KIND, name).sniff(head))


def prepare() -> None:
    """Import what any reader imports late, by reading every fixture."""
    with tempfile.TemporaryDirectory() as folder:
        for name in victims.NAMES:
            reader = plugins.load(readers.KIND, name)
            for fixture in victims.fixtures(name, Path(folder) / name):
                list(reader.scan(fixture.path))
                list(reader.read(fixture.path))


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns, from a forked child with little memory; an error or a death comes back as a text."""

    def limited() -> Any:
        guard.limit_memory(ADDRESS_SPACE)
        return work()

    try:
        return forks.in_child(limited)
    except forks.Died as death:
        return str(death)


def measured(call: Callable[[], Any], path: Path, folder: Path, isolated: bool) -> dict[str, Any]:
    """Run one call under watch and limits; how it ended, and what it took."""
    before, cpu, clock = guard.resident_bytes(), time.process_time(), time.monotonic()
    WATCH.allow_processes = isolated
    WATCH.start(folder, also=(path, path.parent))
    error, reason = "", "read"
    try:
        with guard.deadline(DEADLINE):
            call()
    except UnreadableRecording as refusal:
        reason = str(refusal.reason)
    except (Exception, guard.TookTooLong) as problem:
        reason, error = "error", f"{type(problem).__name__}: {problem}"[:500]
    acts = WATCH.stop()
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, guard.peak_bytes())
    return {
        "outcome": reason,
        "error": error,
        "acts": acts,
        "cpu_s": time.process_time() - cpu,
        "clock_s": time.monotonic() - clock,
        "memory_mb": max(0, peak - before) / guard.MEGABYTE,
    }


def answer(request: dict[str, str]) -> dict[str, Any]:
    folder = Path(request["folder"])
    make = getattr(victims.load_file(victims.HOSTILE / f"{request['module']}.py"), request["case"])
    made = in_child(lambda: str(make(folder)))
    if not str(made).startswith("/"):
        return {"error": f"the case makes no file: {made}"}
    path = Path(made)
    names = called(request["module"], path)
    isolated = any(getattr(plugins.load(readers.KIND, name), "ISOLATED", False) for name in names)
    own = in_child(lambda: directly(names, path, folder))
    if not isinstance(own, dict):
        return {"error": own}
    users = in_child(lambda: measured(lambda: ec.read(path), path, folder, isolated))
    return {"path": made, "calls": own | {"ec.read": users}}


def directly(names: tuple[str, ...], path: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Each reader's own functions, in this process even where they are isolated otherwise.

    Peaks of memory add up: the second call is charged with what the first one took at most.
    """
    loaded = {name: plugins.load(readers.KIND, name) for name in names}
    found = {}
    for name, reader in loaded.items():
        for call in (reader.read, reader.scan):
            found[f"{name}.{call.__name__}"] = measured(lambda c=call: list(c(path)), path, folder, False)
    return found


def main() -> None:
    sys.dont_write_bytecode = True
    warnings.simplefilter("error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for late in ("wfdb", "soundfile", "h5py", "pydicom", "scipy.io"):
            importlib.import_module(late)
    prepare()
    gc.freeze()  # children then share the pages of what is imported
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
