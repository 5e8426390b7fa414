"""A log for schedulers, as lines of JSON: when a command began, how far it is, what it warned of, how it ended.

It never names a recording, a patient or a file of the input: a scheduler keeps its logs where many may read them.
"""

import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOG = "ecgcohorts.log"  # where the contexts of a command keep its log
_PROGRESS_SECONDS = 10.0  # our default; between two lines of one step
_PSEUDONYM = re.compile(r"\b[0-9a-f]{32}\b")
_PACKAGES = ("ecgcohorts", "capezoo")  # whose warnings are logged: those of libraries may repeat what they read


class _JobLog:
    """The log of one command. Nothing is written until it has a file."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._began = time.monotonic()
        self._told: dict[str, float] = {}  # by step: when its last line was written

    def open(self, path: Path, command: str, version: str) -> None:
        """Append to a file. Several processes may write to one: each line names its own."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._command = command
        handler = _Warnings(self)
        for package in _PACKAGES:
            logging.getLogger(package).addHandler(handler)
        self.write("start", version=version)

    def progress(self, what: str, done: int, total: int) -> None:
        """Write how far a step is: at its start, at its end, and now and then between."""
        now = time.monotonic()
        if done >= total or now >= self._told.get(what, -_PROGRESS_SECONDS) + _PROGRESS_SECONDS:
            self._told[what] = now
            self.write("progress", step=what, done=done, total=total)

    def result(self, facts: Any) -> None:
        """Write the numbers of an answer. Its texts and lists may hold ids and paths, and mappings below may have such keys."""
        self.write("result", **_numbers(facts if isinstance(facts, Mapping) else _fields(facts)))

    def end(self, code: int, error: BaseException | None) -> None:
        """Write the last line and close the file. Of an error only the class: its text may name files of the input."""
        name = {} if error is None or not code else {"error": type(error).__name__}
        self.write("end", exit_code=code, seconds=round(time.monotonic() - self._began, 3), **name)
        if self._file is not None:
            os.close(self._file)
            self._file = None
        for package in _PACKAGES:
            logger = logging.getLogger(package)
            for handler in logger.handlers[:]:
                if isinstance(handler, _Warnings) and handler.log is self:
                    logger.removeHandler(handler)

    def write(self, event: str, **facts: Any) -> None:
        if self._file is None:
            return
        line: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        line |= {"command": self._command, "host": socket.gethostname(), "pid": os.getpid()}
        # One write: the lines of processes that share a file do not mix.
        try:
            os.write(self._file, (json.dumps(line | facts, allow_nan=False) + "\n").encode())
        # A full disk under the log is no reason to lose hours of encoding.
        except OSError as error:
            self._file = None
            logging.getLogger(__name__).warning("the log of --log-json ends here: %s", error.strerror)


class _Warnings(logging.Handler):
    def __init__(self, log: _JobLog) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log.write("warning", message=_PSEUDONYM.sub("...", record.getMessage()))
        # Python prints warnings on standard error only while nobody handles them.
        if not logging.getLogger().handlers and logging.lastResort is not None:
            logging.lastResort.handle(record)


def _fields(value: Any) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return dict(value) if hasattr(value, "model_dump") else {}  # a pydantic model gives pairs of name and value


def _numbers(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is a number, and the numbers in the fields of reports below, without what is not finite."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, int | float):
            if math.isfinite(value):
                found[name] = value
        elif below := _numbers(_fields(value)):
            found[name] = below
    return found
