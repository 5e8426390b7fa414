"""What a soak has tried, one line of JSON for each trial: after an interruption only the rest is tried.

Lines: {"session": 2, "commit": "1a2b3c4", "code": "5d6e..."}, then for each trial {"campaign": "bit flips", "trial":
"0 to 99", "answer": ..., "at": 12.5}, seconds since the session began.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = ("ecgcohorts/**/*.py", "capezoo/**/*.py", "tests/faults/*.py", "tests/fuzz/*.py")


class Journal:
    """The answers of trials by campaign and name. path: file to keep them in; None to forget them."""

    def __init__(self, path: Path | None, commit: str, code: str) -> None:
        self.path, self.commit = path, commit
        self._answers: dict[tuple[str, str], Any] = {}
        self._start, self._earlier = time.monotonic(), 0.0
        if path is None:
            return
        sessions = self._resume(path, code) if path.exists() else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write({"session": sessions + 1, "commit": commit, "code": code})

    def _resume(self, path: Path, code: str) -> int:
        """Take over what is there, and return how many sessions that was; results of other code are put aside."""
        # Whoever was killed while it wrote left a last line without an end.
        whole = path.read_bytes().rpartition(b"\n")
        lines = [json.loads(line) for line in whole[0].splitlines()]
        if not lines or lines[0].get("code") != code:
            then = lines[0]["commit"] if lines else "nothing"
            aside = path.with_name(f"{path.stem}-{then}{path.suffix}")
            path.replace(aside)
            print(f"{path}: found trials of other code (commit {then}), kept as {aside.name}. A new log begins.")
            return 0
        path.write_bytes(whole[0] + whole[1])
        at, sessions = 0.0, 0
        for line in lines:
            if "session" in line:
                self._earlier, at, sessions = self._earlier + at, 0.0, line["session"]
            else:
                self._answers[line["campaign"], line["trial"]], at = line["answer"], line["at"]
        self._earlier += at
        if lines[0]["commit"] != self.commit:
            print(f"{path}: begun at commit {lines[0]['commit']}, now {self.commit}; the code is the same.")
        self.commit = lines[0]["commit"]
        print(f"{path}: {len(self._answers)} trials are done already.")
        return sessions

    @property
    def seconds(self) -> float:
        """How long all sessions took; of an interrupted one, until its last answer."""
        return self._earlier + time.monotonic() - self._start

    def knows(self, campaign: str, trial: str) -> bool:
        return (campaign, trial) in self._answers

    def answer(self, campaign: str, trial: str) -> Any:
        return self._answers[campaign, trial]

    def add(self, campaign: str, trial: str, answer: Any) -> None:
        self._answers[campaign, trial] = answer
        at = round(time.monotonic() - self._start, 2)
        self._write({"campaign": campaign, "trial": trial, "answer": answer, "at": at})

    def once(self, campaign: str, trial: str, call: Callable[[], Any]) -> Any:
        """What a trial answers, tried now unless it is known."""
        if not self.knows(campaign, trial):
            self.add(campaign, trial, call())
        return self.answer(campaign, trial)

    def _write(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def commit_now() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def code_now() -> str:
    """Digest of all code that trials depend on in this repository, and the version of Python."""
    total = hashlib.sha256(sys.version.encode())
    for pattern in CODE:
        for path in sorted(set(ROOT.glob(pattern)) - {ROOT / "tests" / "faults" / "page.py"}):
            total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return total.hexdigest()
