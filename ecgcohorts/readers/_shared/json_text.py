"""JSON of strangers: bounded in size, depth and number of values before it is parsed, and no key twice."""

import json
from pathlib import Path
from typing import Any, NoReturn

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import read_bounded

JSON_LIMIT = 64 << 20  # bytes, as for XML
MAX_DEPTH = 64  # our default; FHIR nests about ten deep
MAX_OBJECTS = 200_000  # objects and lists; our default
MAX_VALUES = 2_000_000  # and quotes; each becomes an object of Python: six leads of five minutes at 300 Hz are 540,000
BAD_BYTES = "bytes that are not UTF-8 replaced"

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Json:
    """Read a JSON object, and what stands in it: whatever is absent, or of another kind, is None or empty."""

    @staticmethod
    def read(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Parse a file that holds one JSON object, and return it with notes. Raises UnreadableRecording."""
        data, where = read_bounded(path, JSON_LIMIT), str(path)
        notes: tuple[str, ...] = ()
        _check_size(data, where)
        try:
            content = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            # A letter of a name in another encoding must not cost the ECG: samples and keys are ASCII.
            content, notes = data.decode("utf-8-sig", "replace"), (BAD_BYTES,)
        try:
            found = json.loads(content, object_pairs_hook=_once, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(content.rstrip())
            reason = Reason.TRUNCATED if cut else Reason.HEADER
            Json.refuse(reason, "JSON that ends early" if cut else "text that is not JSON", "one whole object", where)
        if not isinstance(found, dict):
            Json.refuse(Reason.FORMAT, "JSON that is no object", "an object", where)
        return found, notes

    @staticmethod
    def at(value: Any, *keys: str | int) -> Any:
        """Return what stands at a path of keys and numbers, None where there is nothing of that kind.

        >>> Json.at({"a": [{"b": 1}]}, "a", 0, "b"), Json.at({"a": 1}, "a", 0, "b")
        (1, None)
        """
        for key in keys:
            if isinstance(key, str):
                value = value.get(key) if isinstance(value, dict) else None
            else:
                value = value[key] if isinstance(value, list) and key < len(value) else None
        return value

    @staticmethod
    def text(value: Any, *keys: str | int) -> str:
        """Return the stripped text there, or a whole number as text; empty for anything else."""
        found = Json.at(value, *keys)
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        return found.strip() if isinstance(found, str) else ""

    @staticmethod
    def number(value: Any, *keys: str | int) -> float | None:
        """Return the number there; None for anything else, and for what no float can hold."""
        found = Json.at(value, *keys)
        # `true` is a number in Python.
        if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1e300:
            return None
        return float(found)

    @staticmethod
    def items(value: Any, *keys: str | int) -> list[Any]:
        """Return the list there; empty for anything else."""
        found = Json.at(value, *keys)
        return found if isinstance(found, list) else []

    @staticmethod
    def refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
        """Raise UnreadableRecording."""
        raise UnreadableRecording(reason, found, expected, "Export the recording again.", where)


def _check_size(data: bytes, where: str) -> None:
    """Refuse what would take memory or the stack. Counted in the bytes, where strings can only make it more."""
    # A file of fewer bytes than that needs no counting.
    if len(data) > MAX_VALUES and max(data.count(b","), data.count(b'"')) > MAX_VALUES:
        Json.refuse(Reason.LIMIT, f"more than {MAX_VALUES} values or quotes", "fewer", where)
    if len(data) > MAX_OBJECTS and data.count(b"[") + data.count(b"{") > MAX_OBJECTS:
        Json.refuse(Reason.LIMIT, f"more than {MAX_OBJECTS} lists and objects", "fewer", where)
    depth = 0
    # Without escapes, every other piece between quotes is a string. A pattern for strings took 20 s and a gigabyte on a
    # quote that never ends.
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    for bracket in b"".join(plain.split(b'"')[::2]).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            Json.refuse(Reason.LIMIT, f"more than {MAX_DEPTH} levels", "fewer", where)


# Programs differ in which of two they take, so a file could show a person one ECG and this reader another.
def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


# NaN and Infinity are no JSON, but Python reads them.
def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
