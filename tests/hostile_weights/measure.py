"""Run operations on weight folders, each in a forked child, and tell what came out: `measure.py FOLDER ...`, JSON lines.

Imports and the first load happen before the forks, so that seconds and memory are those of the operation alone.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import torch

import capezoo
from capezoo.zoo import pull
from capezoo.zoo.files import read_card
from capezoo.zoo.publish import render
from ecgcohorts.errors import EcgError

OPERATIONS = {
    "load": lambda folder: capezoo.create_model("cape_resnet", pretrained=folder),
    "unchecked": lambda folder: capezoo.load(folder, check=False),
    "verify": lambda folder: refuse(capezoo.verify(folder).problems),
    "pull": lambda folder: pull(folder, folder.parent / f"{folder.name}.copy"),
    "info": lambda folder: render(read_card(folder)),
}
SLOWEST_S = 60  # a child that hangs is ended by this alarm


def refuse(problems: tuple[str, ...]) -> None:
    if problems:
        raise EcgError(problems[0])


def outcome(operation: str, folder: Path) -> dict[str, object]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    try:
        OPERATIONS[operation](folder)
        ended = "done"
    except EcgError as error:
        ended = f"refused: {error}"
    except BaseException as error:
        ended = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    return {
        "ended": ended[:400],
        "seconds": seconds,
        "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
    }


def in_child(operation: str, folder: Path) -> dict[str, object]:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        import signal

        signal.alarm(SLOWEST_S)
        os.write(write, json.dumps(outcome(operation, folder)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else {"ended": "killed", "seconds": float(SLOWEST_S), "kib": 0}


if __name__ == "__main__":
    torch.set_num_threads(1)
    good = Path(sys.argv[1])
    for operation in ("load", "verify", "info"):
        OPERATIONS[operation](good)
    for path in sys.argv[1:]:
        for name in OPERATIONS:
            print(json.dumps({"folder": Path(path).name, "operation": name, **in_child(name, Path(path))}), flush=True)
