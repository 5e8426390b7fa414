"""A store with one bit flipped, or one file missing, empty, cut, longer, doubled or swapped: who notices, and when."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

import ecgcohorts as ec
from ecgcohorts.errors import StoreError
from ecgcohorts.store import load_split, split_names

# Who notices, first come first. `only verify`: what is read is wrong and does not show it.
NOTICED = ("opening", "reading", "verify")
MISSED = ("only verify", "nobody")


class Contents:
    """A store, and all that it gives out while it is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, files_of(folder)
        self.good = digest(ec.open(folder))

    def noticed_by(self) -> str:
        """Who notices that something is wrong: one of NOTICED or MISSED."""
        try:
            opened = ec.open(self.folder)
        except StoreError:
            return "opening"
        try:
            is_wrong = digest(opened) != self.good
        except StoreError:
            return "reading"
        try:
            if ec.verify(self.folder).ok:
                return "nobody"
        except StoreError:
            pass
        return "only verify" if is_wrong else "verify"


def digest(store: ec.Store) -> str:
    total = hashlib.sha256()
    for name, column in sorted(store.index.columns.items()):
        total.update(name.encode() + column.tobytes())
    total.update(repr((store.index.cohorts, store.index.sites, store.index.devices)).encode())
    total.update(store.read(range(store.n_rows)).tobytes())
    total.update(pd.util.hash_pandas_object(store.rejects()).to_numpy().tobytes())
    for name in split_names(store):
        split = load_split(store, name)
        total.update(repr(split.definition).encode() + split.codes.tobytes())
    return total.hexdigest()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")


@contextmanager
def flipped(files: Sequence[Path], number: int) -> Iterator[Path]:
    """One of these files, every second time drawn by its size, with one bit flipped while entered."""
    draw = random.Random(number)
    weights = [path.stat().st_size if number % 2 else 1 for path in files]
    path = draw.choices(files, weights)[0]
    good = path.read_bytes()
    bad = bytearray(good)
    bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
    path.write_bytes(bad)
    try:
        yield path
    finally:
        path.write_bytes(good)


def flip(contents: Contents, number: int) -> str:
    """One bit of one file; who notices."""
    with flipped(contents.files, number) as path:
        by = contents.noticed_by()
    return by if by in NOTICED else f"{by}: {path.relative_to(contents.folder)}, flip {number}"


def harm(contents: Contents, name: str) -> dict[str, str]:
    """What can happen to one file of the snapshot in force, and who notices."""
    path = contents.folder / name
    good = path.read_bytes()
    found = {}
    for kind, bad in (("empty", b""), ("cut short", good[:-1]), ("too long", good + b"\0")):
        path.write_bytes(bad)
        found[kind] = contents.noticed_by()
    path.unlink()
    found["missing"] = contents.noticed_by()
    path.write_bytes(good)
    return found


def partner(contents: Contents, name: str, sizes: dict[str, int]) -> str | None:
    """Another file of the same kind with other content, of the same size if there is one."""
    kind, content = _kind(name), (contents.folder / name).read_bytes()
    others = [one for one in sizes if _kind(one) == kind and (contents.folder / one).read_bytes() != content]
    return min(others, key=lambda one: (sizes[one] != sizes[name], one), default=None)


def _kind(name: str) -> tuple[str, str]:
    parts = name.split("/")
    return parts[0], "metadata" if parts[-1] == "zarr.json" else "content"


def swap(contents: Contents, one: str, other: str, both: bool) -> str:
    """The content of one file stands in another too, or that of both is swapped; who notices."""
    first, second = contents.folder / one, contents.folder / other
    before = first.read_bytes(), second.read_bytes()
    second.write_bytes(before[0])
    if both:
        first.write_bytes(before[1])
    by = contents.noticed_by()
    first.write_bytes(before[0])
    second.write_bytes(before[1])
    return by
