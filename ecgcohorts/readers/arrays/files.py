"""Data files below the folder of a manifest: which there are, and whether one may be opened. No link is followed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.globs import fits

MAX_FILES = 1 << 22  # looked at below one manifest; our default, ten times the largest published cohort


def files_below(folder: Path, globs: Sequence[str]) -> list[str]:
    """Paths that fit a glob, relative, posix, sorted; hidden ones left out. Folders no glob reaches are not listed.

    Raises UnreadableRecording for a folder that cannot be listed, or too many files.
    """
    depth = None if any(glob.startswith("**/") for glob in globs) else max(glob.count("/") for glob in globs)
    seen, found = 0, []
    try:
        for relative in _walk(folder, depth):
            seen += 1
            if seen > MAX_FILES:
                raise UnreadableRecording(
                    Reason.LIMIT, f"more than {MAX_FILES} files", "fewer below one manifest", "Cut it.", str(folder)
                )
            if fits(relative, globs):
                found.append(relative)
    except OSError as error:
        raise UnreadableRecording(
            Reason.PATH,
            f"a folder that cannot be listed ({error.strerror})",
            "folders this user may read",
            "Check their rights.",
            str(folder),
        ) from None
    return sorted(found)


def _walk(folder: Path, depth: int | None) -> Iterator[str]:
    left = [("", 0)]
    while left:
        prefix, level = left.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if depth is None or level < depth:
                        left.append((f"{prefix}{entry.name}/", level + 1))
                elif not entry.is_dir():  # a link to a folder is none of its files; other links are refused when read
                    yield prefix + entry.name


def data_file(folder: Path, entry: str, globs: Sequence[str]) -> Path:
    """Path of an entry of a manifest. Raises UnreadableRecording if no glob fits it, or a link leads to it."""
    parts = entry.split("/")
    hidden = any(part.startswith(".") or not part for part in parts)  # `.`, `..` and an absolute path as well
    if hidden or "\0" in entry or not fits(entry, globs):
        raise UnreadableRecording(
            Reason.MISSING_FILE, "no such recording", "a file that `files` fits", "Scan the manifest.", str(folder)
        )
    place = folder
    for part in parts[:-1]:
        place /= part
        if place.is_symlink():
            raise UnreadableRecording(
                Reason.PATH, "a link to a folder", "a folder", "Name or copy the folder it points to.", str(place)
            )
    return place / parts[-1]
