"""Names: which ones of an archive or a bucket may become files here, and paths as the addresses that plans hold."""

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

FILE = "file://"

_MAX_NAME_BYTES = 1024  # our default; file systems allow 255 a part, and a path below TMPDIR must stay under 4096
_MAX_PART_BYTES = 255
# A drive letter or a backslash means a path on Windows, whatever it means here.
_BAD = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")


def fault_of(name: str) -> str | None:
    """Name what is wrong with a relative posix path, in a few words that do not repeat it; None if nothing is."""
    if name.startswith("/"):
        return "an absolute path"
    if _BAD.search(name):
        return "a drive letter, a backslash or a control character"
    parts = name.split("/")
    if ".." in parts:
        return "a path with .."
    if "" in parts or "." in parts:
        return "an empty part of a path"
    # In bytes, which file systems count, not in characters.
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if max(sizes) > _MAX_PART_BYTES or sum(sizes) + len(sizes) > _MAX_NAME_BYTES:
        return "a name that is too long"
    return None


def uri_of(path: Path) -> str:
    """Return a path as a file URI, which holds any name, also one that is no text."""
    return Path(os.path.abspath(path)).as_uri()


def path_of(uri: str) -> Path:
    """Undo `uri_of`."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE))))
