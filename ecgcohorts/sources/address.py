"""Paths as file URIs and back: a URI holds any name, also one that is no text, and stands in plans."""

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

FILE = "file://"


def uri_of(path: Path) -> str:
    return Path(os.path.abspath(path)).as_uri()


def path_of(uri: str) -> Path:
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE))))
