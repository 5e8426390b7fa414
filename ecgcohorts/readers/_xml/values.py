"""Numbers, dates and samples in the text of XML elements: matched from end to end, or refused."""

import base64
import re
from datetime import datetime
from typing import NoReturn
from xml.etree.ElementTree import Element

from ecgcohorts.errors import Reason, UnreadableRecording

NUMBER = re.compile(r"[+-]?[0-9]{1,15}(?:[.,][0-9]{0,15})?(?:[eE][+-]?[0-9]{1,2})?")


def text_of(element: Element | None, path: str) -> str:
    """Text of the first element at a path below, stripped; empty if there is none."""
    return (element.findtext(path) or "").strip() if element is not None else ""


def attribute_of(element: Element, path: str, name: str) -> str:
    """Attribute of the first element at a path below (`.`: of the element itself), stripped; empty if there is none."""
    found = element.find(path)
    return (found.get(name) or "").strip() if found is not None else ""


def number(text: str | None, what: str, where: str) -> float | None:
    """A number written out, decimal comma allowed; None if absent or empty. Raises UnreadableRecording."""
    stripped = (text or "").strip()
    if not stripped:
        return None
    if not NUMBER.fullmatch(stripped):
        refuse(Reason.HEADER, f"{stripped[:40]!r} as {what}", "a number", where)
    return float(stripped.replace(",", "."))


def integer(text: str | None, what: str, where: str) -> int | None:
    """A whole number; None if absent or empty. Raises UnreadableRecording."""
    value = number(text, what, where)
    if value is not None and value != int(value):
        refuse(Reason.HEADER, f"{value:g} as {what}", "a whole number", where)
    return None if value is None else int(value)


def number_of(element: Element, path: str, where: str) -> float | None:
    """The number in the first element at a path below; None if absent or empty."""
    return number(text_of(element, path), path, where)


def integer_of(element: Element, path: str, where: str) -> int | None:
    """The whole number in the first element at a path below; None if absent or empty."""
    return integer(text_of(element, path), path, where)


def base64_bytes(encoded: str, where: str) -> bytes:
    """Decode base64 without white space, strictly: the standard decoder skips junk unless told not to."""
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:  # binascii.Error, or characters outside ASCII
        refuse(Reason.HEADER, "samples that are not base64", "base64 and white space only", where)


def moment(*parts: str | int | None) -> datetime | None:
    """A moment from year, month, day and perhaps hour, minute, second; None if that is no moment."""
    try:
        return datetime(*[int(part or 0) for part in parts])  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None


def refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    """Raise UnreadableRecording for a file that its writer can export again."""
    raise UnreadableRecording(reason, found, expected, "Export the file again.", where)
