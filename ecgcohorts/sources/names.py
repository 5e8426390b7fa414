"""Which names of an archive or an object store may become files here, below a folder of our own."""

import re

MAX_NAME_BYTES = 1024  # our default; file systems allow 255 a part, and a path below TMPDIR must stay under 4096
MAX_PART_BYTES = 255
_BAD = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")


def fault_of(name: str) -> str | None:
    """What is wrong with a relative posix path, in a few words that do not repeat it; None if nothing is."""
    if name.startswith("/"):
        return "an absolute path"
    if _BAD.search(name):
        return "a drive letter, a backslash or a control character"
    parts = name.split("/")
    if ".." in parts:
        return "a path with .."
    if "" in parts or "." in parts:
        return "an empty part of a path"
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if max(sizes) > MAX_PART_BYTES or sum(sizes) + len(sizes) > MAX_NAME_BYTES:
        return "a name that is too long"
    return None


def is_hidden(name: str) -> bool:
    """Is it, or a folder it stands in, hidden?"""
    return name.startswith(".") or "/." in name
