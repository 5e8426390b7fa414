"""Where an export goes: a name that is free, outside the store, and appears only once all of it is on disk."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgcohorts.errors import SourceError
from ecgcohorts.io.durable import make_folder, name_aside, sync_folder
from ecgcohorts.store.reader import AnyStore


@contextmanager
def whole_folder(store: AnyStore, out: Path) -> Iterator[Path]:
    """A folder to fill that becomes OUT in one step, if nothing went wrong."""
    refuse(store, out)
    make_folder(out.parent)
    aside = name_aside(out)
    aside.mkdir()
    try:
        yield aside
        os.sync()  # all its files at once: one by one takes longer than writing them
        refuse(store, out)
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(out.parent)


def refuse(store: AnyStore, out: Path) -> None:
    """Raise SourceError for a place where something is already, or that lies in the store."""
    if out.exists() or out.is_symlink():
        raise SourceError(f"{out}: exists already, and an export replaces nothing. Name a new one, or remove it first.")
    for member in store.members:
        if isinstance(member.path, Path) and member.path.resolve() in out.resolve().parents:
            raise SourceError(f"{out}: lies in the store {member.path}. Name a folder beside it.")
