"""Manifests of every format version this package reads, brought to the one it writes.

A format version is a promise: `tests/golden/store-<version>` must open for ever. An upgrade changes what is read, never
the folder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecgcohorts.errors import StoreError
from ecgcohorts.store.schema import FORMAT_VERSION, recipe_of_flat

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def _from_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of format 1, whose recipe is flat fields, as format 2 has it, with a list of steps."""
    return fields | {"format_version": 2, "recipe": recipe_of_flat(fields["recipe"]).model_dump(mode="json")}


# Format version -> the function that returns its manifest as the next version has it.
UPGRADES: dict[int, Upgrade] = {1: _from_1}


def upgraded(place: Path | str, data: bytes) -> bytes:
    """Return the manifest of a store as FORMAT_VERSION has it; one of that version comes back unchanged.

    Looks at the version before anything else, because a manifest of another version has other fields. Raises
    StoreError, with what to do, for a version that this package does not read.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return data  # the schema says where it breaks
    if not isinstance(fields, dict):
        return data
    version = fields.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise StoreError(
            f"{place}: found store format {version}, expected {FORMAT_VERSION}. "
            "A newer version wrote it: pip install --upgrade ecgcohorts"
        )
    if version == FORMAT_VERSION:
        return data
    while version != FORMAT_VERSION:
        if type(version) is not int or version not in UPGRADES:
            raise StoreError(
                f"{place}: found store format {version!r}, expected {FORMAT_VERSION}. Ingest the recordings again."
            )
        try:
            fields = UPGRADES[version](fields)
        except (KeyError, TypeError, ValueError):  # ValueError is pydantic's, too
            raise StoreError(f"{place}: manifest is damaged at recipe. Restore the store from a copy.") from None
        version = fields["format_version"]
    return json.dumps(fields).encode()
