"""Notice that a process of several stands still, name it, and end this one: it would wait for the other without a word.

OUT/ranks/RANK.json   step, what the process is at, and a count that rises while it lives; every few seconds
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ecgcohorts.io.durable import make_folder

_PERIOD_S = 5.0  # between two looks at the others, at most; our default
_EXIT = 2  # as for any error that a command line reports
WAITING = "computing"  # with the others: who is at anything else lets them wait


class Watch:
    """Tells the others every few seconds that this process lives, and where it is; a context manager.

    If `beat` is not called for `stall_s` seconds, it finds out who is to blame, hands the sentence to `tell`, prints it and
    ends the process: the thread that trains may hang in a library that no exception reaches.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, stall_s: float, tell: Callable[[str], None]) -> None:
        self._folder, self._rank, self._world, self._stall_s, self._tell = folder, rank, world_size, stall_s, tell
        self._at = (time.monotonic(), 0, "starting")
        self._heard: dict[int, tuple[int, float]] = {}  # rank -> its count, and when it last rose
        self._last: dict[int, dict[str, Any]] = {}
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        if self._world > 1:
            make_folder(self._folder)
            threading.Thread(target=self._run, name="watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def beat(self, step: int, doing: str) -> None:
        """Say what comes next. Called by the thread that trains, many times a step."""
        self._at = (time.monotonic(), step, doing)

    def _run(self) -> None:
        period, count = min(_PERIOD_S, self._stall_s / 8), 0
        while not self._ended.wait(period):
            since, step, doing = self._at
            self._write({"count": (count := count + 1), "step": step, "doing": doing, "process": os.getpid()})
            self._listen()
            # Two periods more: a process that stands still at the same moment must have had time to fall silent.
            if time.monotonic() - since > self._stall_s + 2 * period and not self._ended.is_set():
                self._give_up(step)

    def _write(self, values: dict[str, Any]) -> None:
        path = self._folder / f"{self._rank}.json"
        # Whole or not at all, but not flushed to the disk: after a power cut nobody asks.
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(values), encoding="utf-8")
        aside.replace(path)

    def _listen(self) -> None:
        for rank in range(self._world):
            try:
                values = json.loads((self._folder / f"{rank}.json").read_text(encoding="utf-8"))
                count = int(values["count"])
            except (OSError, ValueError, KeyError):
                continue  # not there yet, or on a file system that is slow to tell
            if count != self._heard.get(rank, (None, 0.0))[0]:
                # By our own clock: those of two machines differ.
                self._heard[rank], self._last[rank] = (count, time.monotonic()), values

    def _give_up(self, step: int) -> None:
        reason = f"step {step}: nothing has moved for {self._stall_s:.0f} s. {self._blamed()} Run the same command again: it " \
                 "goes on from the newest checkpoint. A longer wait: --stall-after."  # fmt: skip
        try:
            self._tell(reason)
        finally:
            print(f"capezoo, rank {self._rank}: {reason}", file=sys.stderr, flush=True)
            os._exit(_EXIT)

    def _blamed(self) -> str:
        """Say which processes the others wait for."""
        now = time.monotonic()
        silent = [rank for rank in range(self._world) if now - self._heard.get(rank, (0, 0.0))[1] > self._stall_s / 2]
        if silent:
            return " ".join(f"Rank {rank} does not answer{self._named(rank)}." for rank in silent)
        busy = [rank for rank, values in self._last.items() if values["doing"] != WAITING]
        if busy:
            return " ".join(f"Rank {rank} is {self._last[rank]['doing']}{self._named(rank)}." for rank in busy)
        return "All processes wait for each other."

    def _named(self, rank: int) -> str:
        return f" (process {self._last[rank]['process']})" if rank in self._last else " (and never did)"
