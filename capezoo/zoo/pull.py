"""Weights by name into a folder of one's own: for machines without a network, and to keep."""

import os
import shutil
from pathlib import Path

from capezoo.zoo.checks import problems_of
from capezoo.zoo.files import SIZE_LIMITS
from capezoo.zoo.listing import locate
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.io.durable import make_folder, sync_folder, write_file


def pull(weights: str | Path, to: str | Path, offline: bool = False) -> Path:
    """Copy weights given as "encoder.tag", folder, or "hf-hub:org/repo@revision" to a new folder, and return it.

    The folder appears whole and checked, or not at all. Raises SpecError if it exists or there are no such weights,
    SourceError if they are not whole.
    """
    target = Path(to)
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new folder. Name another, or remove it.")
    source = locate(weights, offline)
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        make_folder(target.parent)
        for name in SIZE_LIMITS:
            if (source / name).is_file():
                write_file(aside / name, (source / name).read_bytes())
        problems = problems_of(aside)  # of the copy: what was read may be damaged, and so may what was written
        if problems:
            raise SourceError(f"{source}: found damaged weights, expected whole ones. {problems[0]}")
        os.rename(aside, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
