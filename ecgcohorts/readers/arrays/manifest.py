"""A manifest: a small YAML file that lists data files below its folder and describes all of them alike."""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ecgcohorts.errors import Reason, UnreadableRecording, expectation
from ecgcohorts.io.globs import fits
from ecgcohorts.io.regular import read_bounded, size_of
from ecgcohorts.readers.arrays.description import ArrayDescription

VERSION_KEY, FILES_KEY = "ecg_arrays", "files"
MAX_MANIFEST_BYTES = 32 << 10  # our default; a long one has 1 kB
MAX_GLOBS = 64  # our default
MAX_BRACKETS = 64  # our default; three lists are possible, and YAML takes its time over thousands
MAX_FILES = 1 << 22  # looked at below one manifest; our default, ten times the largest published cohort
_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:#[^\n]*)?\r?\n|---[ \t]*\r?\n)*ecg_arrays[ \t]*:[ \t]")
_GLOB = re.compile(r"[^/\\:\0]+(?:/[^/\\:\0]+)*")
_FRAME = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)


class Manifest(BaseModel):
    """The data files below a manifest, and how to read all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(min_length=1, max_length=MAX_GLOBS)]
    description: ArrayDescription

    @model_validator(mode="after")
    def _globs_stay_below(self) -> "Manifest":
        for glob in self.files:
            parts = glob.split("/")
            if not _GLOB.fullmatch(glob) or not glob.isprintable() or {".", ".."} & {*parts} or parts[-1] == "**":
                raise ValueError("expected files such as *.npy, day1/*.csv or **/*.txt: below this folder, with /")
            if any("**" in part for part in (parts[1:] if parts[0] == "**" else parts)):
                raise ValueError("found ** elsewhere than as the first folder of a pattern")
        return self

    def entries(self, path: Path) -> list[str]:
        """List the data files of the manifest at `path`: posix paths from its folder, sorted, hidden ones left out.

        Raises UnreadableRecording if there is none, too many, or a folder that cannot be listed.
        """
        found = [entry for entry in _files_below(path.parent, self.files) if entry != path.name]
        if not found:
            _refuse(Reason.MISSING_FILE, "no file that `files` fits", "data files below its folder", str(path))
        return found

    def file(self, folder: Path, entry: str) -> Path:
        """Return the path of one entry. Raises UnreadableRecording if no glob fits it, or a link leads to it."""
        parts = entry.split("/")
        hidden = any(part.startswith(".") or not part for part in parts)  # so are `.`, `..` and an absolute path
        if hidden or "\0" in entry or not fits(entry, self.files):
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

    @staticmethod
    def load(path: Path) -> "Manifest":
        """Read and check a manifest. It is kept until the file changes, since ingest asks for one recording at a time.

        Raises UnreadableRecording for anything that is not stated, stated twice, or stated wrongly.
        """
        return _load(path.absolute(), size_of(path), str(path))


def sniff(head: bytes) -> bool:
    """Tell whether the file is a manifest, whose first key is `ecg_arrays`. Data files do not say what they are."""
    return _FIRST_LINE.match(head) is not None


@lru_cache(maxsize=64)
def _load(path: Path, _size_and_time: tuple[int, int], where: str) -> Manifest:
    data = read_bounded(path, MAX_MANIFEST_BYTES)
    if not sniff(data):
        _refuse(Reason.FORMAT, "no key ecg_arrays at its beginning", "ecg_arrays: 1 as the first key", where)
    lines = data.rstrip(b"\r\n").splitlines()
    if not data.endswith(b"\n") or not lines[-1].startswith(f"{FILES_KEY}:".encode()):
        # Every optional key stands before it, so a manifest that was cut anywhere lacks it and cannot mean something else.
        _refuse(Reason.TRUNCATED, "another end", f"one last line `{FILES_KEY}: [...]` with its line end", where)
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        _refuse(Reason.HEADER, "too many brackets", f"at most {MAX_BRACKETS}", where)
    content = _flat_yaml(data, where)
    version = content.pop(VERSION_KEY, None)
    if version != "1":
        _refuse(Reason.UNSUPPORTED, f"{VERSION_KEY}: {version!s:.20}", f"{VERSION_KEY}: 1", where)
    allowed = [FILES_KEY, *ArrayDescription.model_fields]
    for key in content:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            meant = f"{close[0]}?" if close else f"one of {', '.join(allowed)}"
            _refuse(Reason.HEADER, f"the unknown key {key!r:.40}", meant, where)
    try:
        files = content.pop(FILES_KEY)
        return Manifest(files=files, description=ArrayDescription.model_validate(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part != "description") or "the whole"
        _refuse(Reason.HEADER, f"{key[:80]}: {expectation(first)[:200]}", "a manifest that states everything", where)


def _flat_yaml(data: bytes, where: str) -> dict[str, Any]:
    """Return keys with one text or one list of texts each; pydantic makes numbers of them.

    They are built from YAML's events: no alias can multiply anything, nothing nests, no tag makes objects, no key
    stands twice, and a lead called `NO` or a 1:30 stays what was written.
    """
    try:
        events = yaml.parse(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        found = _pairs((event for event in events if not isinstance(event, _FRAME)), where)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" (line {mark.line + 1})"
        _refuse(Reason.HEADER, f"text that is not YAML in UTF-8{place}", "YAML", where)
    content: dict[str, Any] = {}
    for key, value in found:
        if key in content:
            _refuse(Reason.HEADER, f"the key {key!r:.40} twice", "each key once", where)
        content[key] = value
    return content


def _pairs(events: Iterator[Any], where: str) -> list[tuple[str, str | list[str] | None]]:
    """Return the keys and values of one flat mapping. Being lazy, it refuses deep nesting at its second level."""

    def text(event: Any) -> str | None:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            _refuse(Reason.HEADER, "nesting, an anchor or a tag", "keys with one value or one list each", where)
        is_null = event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")
        return None if is_null else str(event.value)

    start = next(events, None)
    if not isinstance(start, yaml.MappingStartEvent) or start.anchor is not None or start.tag is not None:
        _refuse(Reason.HEADER, "no keys", "keys and values", where)
    pairs: list[tuple[str, str | list[str] | None]] = []
    while not isinstance(event := next(events, None), yaml.MappingEndEvent):
        key, value = text(event) or "", next(events, None)
        if isinstance(value, yaml.SequenceStartEvent) and value.anchor is None and value.tag is None:
            items = []
            while not isinstance(item := next(events, None), yaml.SequenceEndEvent):
                items.append(text(item) or "")
            pairs.append((key, items))
        else:
            pairs.append((key, text(value)))
    if next(events, None) is not None:
        _refuse(Reason.HEADER, "a second document", "one", where)
    return pairs


def _files_below(folder: Path, globs: Sequence[str]) -> list[str]:
    """Return the sorted posix paths that fit a glob. Folders that no glob can reach are not listed."""
    depth = None if any(glob.startswith("**/") for glob in globs) else max(glob.count("/") for glob in globs)
    seen, found = 0, []
    try:
        for relative in _walk(folder, depth):
            seen += 1
            if seen > MAX_FILES:
                raise UnreadableRecording(
                    Reason.LIMIT,
                    f"more than {MAX_FILES} files",
                    "fewer below one manifest",
                    "Split the folder.",
                    str(folder),
                )
            if fits(relative, globs):
                found.append(relative)
    except OSError as error:
        raise UnreadableRecording(
            Reason.PATH,
            f"a folder that cannot be listed ({error.strerror})",
            "folders this user may read",
            "Check their permissions.",
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
                # A link to a folder is not one of its files. A link to a file is listed, and refused when it is read.
                elif not entry.is_dir():
                    yield prefix + entry.name


def _refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, "See arrays in docs/formats.md.", where)
