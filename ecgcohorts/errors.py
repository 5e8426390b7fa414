"""Every error this package raises on purpose, as one tree.

EcgError                     catch this one; its text says what was wrong, where, and what to do
├── UnreadableRecording      a raw file, or one recording in it, could not be read exactly
├── RejectedRecording        was read, but the recipe or the cohort refuses it (too short, implausible ...)
├── SpecError                a cohort description, a recipe name or an option is wrong
├── SourceError              the folder or file to read is missing, empty, or of another kind than stated
│   ├── NothingMatched       a table was read, but none of its ids belongs to the cohort
│   └── ContradictoryPatients too many patient ids stand for recordings of different people
├── StoreError               a store is missing, damaged, or of another version
│   ├── RecipeMismatch       two recipes, or a store and weights of different recipes
│   ├── KeyMismatch          the store was made with another pseudonym key
│   └── LockHeld             another process is writing
├── ObjectStoreError         an object store does not answer, or refuses
├── MachineError             the disk is full or failing, or memory, open files or rights run out; fix that and run again
├── MissingExtra             an ImportError too: a package that one of our extras brings is not installed
├── PlanImpossible           the batches asked for cannot be drawn from this index
└── StateMismatch            a saved sampler or training state belongs to something else
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Errors of system calls that concern the machine and not the data -> remedy. A run must not refuse a recording for them.
_MACHINE = {
    errno.ENOSPC: "Free some room on the disk",
    errno.EDQUOT: "Free some of your quota",
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "Close other programs",
    errno.ENOMEM: "Free some memory, or use fewer processes",
    errno.EIO: "Check the health of the disk",
    errno.ESTALE: "Mount the disk again",
    # A mount whose server or network is gone answers with these, for every file alike.
    **dict.fromkeys(
        (errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET),
        "Bring the file server back",
    ),
    errno.ENOTCONN: "Mount the disk again",
    errno.EINTR: "Let the system call finish",
}
CANNOT_OPEN = "a file that cannot be opened ({})"
# Of a recording's own file, these concern the machine once its header was read.
_OUT_OF_REACH = {
    errno.ENOENT: "Mount the disk again, or put the files back",
    errno.EACCES: "Give this user access",
    errno.EPERM: "Give this user access",
}


class Reason(StrEnum):
    """The reason why a recording was refused: a code stored in `rejects.parquet`. Codes are never renamed."""

    FORMAT = "unknown_format"
    HEADER = "bad_header"
    PATH = "unsafe_path"
    MISSING_FILE = "missing_file"
    TRUNCATED = "truncated"
    CHECKSUM = "checksum_mismatch"
    LIMIT = "limit_exceeded"
    UNSUPPORTED = "unsupported_variant"
    BIMODAL = "bimodal_compression"
    UNIT = "unknown_unit"
    LEADS = "leads_missing"
    DUPLICATE_LEAD = "lead_twice"
    RATE = "rate_out_of_range"
    EMPTY = "empty_signal"
    TOO_SHORT = "too_short"
    GAPS = "no_gap_free_strip"
    AMPLITUDE = "implausible_amplitude"
    GAIN = "unexpected_gain"
    TIMEOUT = "took_too_long"
    CRASH = "reader_crashed"
    UNEXPECTED = "unexpected_error"


class EcgError(Exception):
    """Base of all errors raised on purpose by this package."""


class RecordingError(EcgError):
    """A recording that cannot be used. Abstract: raise one of its two children.

    `found`, `expected` and `remedy` are for the person who holds the file. Only `reason` is ever stored, because the others
    may repeat text of a header.
    """

    # All arguments go to Exception: pickle makes an error that a worker process sends anew from them.
    def __init__(self, reason: Reason, found: str, expected: str, remedy: str = "", where: str = "") -> None:
        self.reason, self.found, self.expected, self.remedy, self.where = reason, found, expected, remedy, where
        super().__init__(reason, found, expected, remedy, where)

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{where}found {self.found}, expected {self.expected}. {self.remedy}".rstrip()


class UnreadableRecording(RecordingError):
    """A raw file, or one recording in it, could not be read exactly."""

    @property
    def lacks_rights(self) -> bool:
        """Whether a file may not be read here, which says nothing about what is in it."""
        return self.found in {CANNOT_OPEN.format(os.strerror(code)) for code in (errno.EACCES, errno.EPERM)}


class RejectedRecording(RecordingError):
    """A recording that was read, but that the recipe or the cohort refuses."""


class SpecError(EcgError):
    """A cohort description, a recipe name or an option is wrong."""


class SourceError(EcgError):
    """The folder or file to read is missing, empty, or of another kind than stated."""


class NothingMatched(SourceError):
    """A table was read, but none of its ids belongs to the cohort. Command lines end with exit code 3."""


class ContradictoryPatients(SourceError):
    """Too many patient ids stand for recordings of different people. Command lines end with exit code 3."""


class StoreError(EcgError):
    """A store is missing, damaged, or of another version."""


class RecipeMismatch(StoreError):
    """Two recipes, or a store and weights of different recipes, were about to be mixed."""


class KeyMismatch(StoreError):
    """The store was made with another pseudonym key."""


class LockHeld(StoreError):
    """Another process is writing to this store."""


class ObjectStoreError(EcgError):
    """An object store does not answer, or refuses a request."""


class MachineError(EcgError):
    """The machine failed: a full or failing disk, too many open files, no memory. Nothing is wrong with the data."""


def is_of_machine(error: BaseException) -> bool:
    """Tell whether an error concerns the machine and not the file that was read."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _MACHINE)


def machine_error(where: str, error: OSError | MemoryError) -> MachineError:
    """Return the error of a system call without the path it names, which may be one of the input."""
    # Remade from the number alone: the text of an OSError holds the path, and a path of the input must not reach a log.
    code = errno.ENOMEM if isinstance(error, MemoryError) else error.errno
    what = os.strerror(code) if code else type(error).__name__
    remedy = (_MACHINE | _OUT_OF_REACH).get(code or 0, "Fix that")
    return MachineError(
        f"{where}: the machine failed ({what}). {remedy}, then run the same command again: finished work is kept."
    )


class MissingExtra(EcgError, ImportError):
    """A package that one of our extras brings is not installed; the message names the extra."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import within the block into a MissingExtra that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "ecgcohorts", "capezoo"):  # a defect of ours, which no installation mends
            raise
        raise MissingExtra(f"{package} is not installed. Run: {install_line(extra)}", name=package) from None


def require(extra: str, *packages: str) -> None:
    """Raise MissingExtra, which names the extra, for the first of its packages that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(f"{package} is not installed. Run: {install_line(extra)}", name=package)


class PlanImpossible(EcgError):
    """The batches asked for cannot be drawn from this index."""


class StateMismatch(EcgError):
    """A saved sampler or training state belongs to another index, seed or configuration."""


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Return a question that names the closest of the known names, with a leading space, or an empty string.

    >>> did_you_mean("ptb-xl", ["code15", "ptb_xl"])
    " Did you mean 'ptb_xl'?"
    """
    from difflib import get_close_matches  # only a mistyped name needs it

    close = get_close_matches(found, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def expectation(fault: Mapping[str, Any]) -> str:
    """Return what was expected of a value, from one entry of a pydantic error's `errors()`.

    >>> expectation({"type": "less_than", "msg": "Input should be less than 1"})
    'less than 1'
    """
    # Words of the library that name Python's types or its own are no help to who wrote a YAML file.
    plain = {
        "tuple_type": "a list",
        "list_type": "a list",
        "dict_type": "keys with values",
        "model_type": "keys with values",
        "extra_forbidden": "no key of this name",
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "bool_parsing": "true or false",
    }
    about = fault.get("ctx", {})
    if fault["type"] == "union_tag_invalid" and about:
        return f"one of {about['expected_tags']}, not {about['tag']!r}"
    if fault["type"] == "string_pattern_mismatch" and about:
        return f"text of the pattern {about['pattern']}"
    said = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return plain.get(str(fault["type"]), said)


def install_line(extra: str) -> str:
    """Return the command that installs an optional part of this package, from wherever the package itself came.

    A name alone fails where no index has the package: a clone is named by its folder, and anything else that pip
    fetched from an address by that address (PEP 610).
    """
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f'pip install "{checkout}[{extra}]"'
    try:
        origin = json.loads(distribution("ecgcohorts").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url = origin.get("url", "")
    if "dir_info" in origin:
        return f'pip install "{url.removeprefix("file://")}[{extra}]"'
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f'pip install "ecgcohorts[{extra}]{f" @ {url}" if url else ""}"'
