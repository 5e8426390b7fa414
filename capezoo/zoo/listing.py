"""Which encoders and which weights there are, and where a name leads."""

from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from capezoo.zoo.files import CONFIG
from capezoo.zoo.hub import HUB, cache_folder, fetch
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

BUNDLED = Path(__file__).parent / "weights"


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Names of encoders, or with `pretrained` of weights here as "encoder.tag", that match a shell pattern."""
    names = [name for name, _ in _weights()] if pretrained else plugins.names("capezoo.encoders")
    return sorted({name for name in names if fnmatchcase(name, pattern)})


def locate(weights: str | Path, offline: bool = False) -> Path:
    """Folder of weights given as "encoder.tag", as a folder, or as "hf-hub:org/repo@revision" (fetched if needed).

    offline: take Hub weights from the cache only, as with HF_HUB_OFFLINE=1. Raises SpecError naming what there is,
    SourceError if the Hub has nothing that may be used.
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
    close = get_close_matches(str(weights), here, n=3) or sorted(here)
    names = f"one of {', '.join(close)}" if close else "the folder of published weights (none are installed by name)"
    raise SpecError(f"found no weights {str(weights)!r}, expected {names}, or hf-hub:ORG/REPO@REVISION.")


def _weights() -> Iterator[tuple[str, Path]]:
    """Name and folder of every weight set here; the bundled one wins over a cached one of the same name."""
    for root in (cache_folder(), BUNDLED):
        if root.is_dir():
            yield from ((path.name, path) for path in sorted(root.iterdir()) if (path / CONFIG).is_file())
