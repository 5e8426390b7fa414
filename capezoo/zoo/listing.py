"""Which encoders and weights there are, where a name leads, and a checked copy of what is there."""

import os
import shutil
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from capezoo.zoo.files import CONFIG, SIZE_LIMITS, _require_regular, problems_of
from capezoo.zoo.hub import HUB, cache_folder, fetch
from ecgcohorts import plugins
from ecgcohorts.errors import SourceError, SpecError, did_you_mean
from ecgcohorts.io.durable import copy_file, make_folder, sync_folder

BUNDLED = Path(__file__).parent / "weights"


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """List encoders, or with `pretrained` the weights on this machine as "encoder.tag", that match a shell pattern."""
    names = [name for name, _ in _weights()] if pretrained else plugins.names("capezoo.encoders")
    return sorted({name for name in names if fnmatchcase(name, pattern)})


def locate(weights: str | Path, offline: bool = False) -> Path:
    """Return the folder of weights: "encoder.tag", a folder, or "hf-hub:org/repo@revision" (fetched if needed).

    offline: take Hub weights from the cache only, as with HF_HUB_OFFLINE=1. Raises SpecError, naming the weights there
    are, and SourceError if the Hub has no whole weight folder there.
    """
    if str(weights).startswith(HUB):
        return fetch(str(weights), offline)
    if (Path(weights) / CONFIG).is_file():
        return Path(weights)
    if Path(weights).is_dir():
        raise SpecError(f"{weights}: found a folder without {CONFIG}, expected published weights. "
                        "Make them: capezoo publish RUN DIR")  # fmt: skip
    here = dict(_weights())
    if str(weights) in here:
        return here[str(weights)]
    # A machine may hold hundreds of weights: name the likely ones only.
    close = get_close_matches(str(weights), here, n=3) or sorted(here)
    names = f"one of {', '.join(close)}" if close else "the folder of published weights (none are installed by name)"
    raise SpecError(
        f"found no weights {str(weights)!r}, expected {names}, a folder of weights, or hf-hub:ORG/REPO@REVISION."
        + did_you_mean(str(weights), here)
    )


def pull(weights: str | Path, to: str | Path, offline: bool = False) -> Path:
    """Copy weights given as "encoder.tag", folder, or "hf-hub:org/repo@revision" to a new folder, and return it.

    The folder appears whole and checked, or not at all. Raises SpecError if it exists or there are no such weights,
    SourceError if they are damaged.
    """
    target = Path(to)
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new folder. Name another, or remove it.")
    source = locate(weights, offline)
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        make_folder(target.parent)
        _require_regular(source)
        for name in SIZE_LIMITS:
            if (source / name).exists():
                copy_file(source / name, aside / name)
        # The copy is checked, not the source: reading and writing can both go wrong.
        problems = problems_of(aside)
        if problems:
            raise SourceError(f"{source}: found damaged weights, expected whole ones. {problems[0]}")
        os.rename(aside, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _weights() -> Iterator[tuple[str, Path]]:
    """Yield name and folder of all weights on this machine."""
    # `dict` keeps the last of a name: bundled weights win over cached ones.
    for root in (cache_folder(), BUNDLED):
        if root.is_dir():
            yield from ((path.name, path) for path in sorted(root.iterdir()) if (path / CONFIG).is_file())
