"""Which encoders and which weights there are, and where a name leads."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from capezoo.zoo.files import CONFIG
from ecgcohorts import plugins
from ecgcohorts.errors import SourceError, SpecError

BUNDLED = Path(__file__).parent / "weights"
HUB = "hf-hub:"


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Names of encoders, or with `pretrained` of weights here as "encoder.tag", that match a shell pattern."""
    names = [name for name, _ in _weights()] if pretrained else plugins.names("capezoo.encoders")
    return sorted({name for name in names if fnmatchcase(name, pattern)})


def cache_folder() -> Path:
    """Where downloaded weights live: CAPEZOO_CACHE, or capezoo/weights in the user's cache folder. Not created."""
    if chosen := os.environ.get("CAPEZOO_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capezoo" / "weights"


def locate(weights: str | Path) -> Path:
    """Folder of weights given as "encoder.tag", as a folder, or as "hf-hub:org/repo@revision" (fetched if needed).

    Raises SpecError naming what there is.
    """
    if str(weights).startswith(HUB):
        return _from_hub(str(weights).removeprefix(HUB))
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


def _from_hub(address: str) -> Path:
    repository, at, revision = address.partition("@")
    if not at or not revision or repository.count("/") != 1:
        raise SpecError(
            f"found {HUB}{address!s}, expected {HUB}ORG/REPO@REVISION. Name a revision, best a commit: a branch can move."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{HUB}{address}: found nothing to fetch ({reason}). Check the name, or give a folder."
        ) from None
