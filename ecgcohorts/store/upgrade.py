"""Format versions of a store: manifests of every one this package reads, and the two it writes.

A format version is a promise: `tests/golden/store-<version>` must open for ever. An upgrade changes what is read, never
the folder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecgcohorts.errors import StoreError
from ecgcohorts.preprocess import steps
from ecgcohorts.preprocess.steps import Recipe

FORMAT_VERSION = 2  # 1 had one recipe, as flat fields; stores of `cape-v1` are still written so, byte for byte
# The steps that the flat fields of format 1 describe.
_FLAT_STEPS = (
    steps.CheckRate, steps.SelectLeads, steps.FillGaps, steps.Trim, steps.Cut, steps.Resample, steps.BandPass, steps.Notch,
    steps.CheckAmplitude, steps.Store,
)  # fmt: skip
_LOW_RATE_HZ = 100.0  # a field of format 1; the quality flag that it named is a fact of the source, not of a recipe

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def _from_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of format 1, whose recipe is flat fields, as format 2 has it, with a list of steps."""
    return fields | {"format_version": 2, "recipe": _recipe_of_flat(fields["recipe"]).model_dump(mode="json")}


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


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as manifests and the root's attributes have it: `cape-v1` flat, as format 1 does, others in steps."""
    if recipe.name != "cape-v1" or tuple(type(step) for step in recipe.steps) != _FLAT_STEPS:
        return recipe.model_dump(mode="json")
    check, band, notch = recipe.required(steps.CheckRate), recipe.required(steps.BandPass), recipe.required(steps.Notch)
    flat = {
        "name": recipe.name,
        "leads": list(recipe.leads),
        "rate_hz": recipe.rate_hz,
        "unit": recipe.unit,
        "lsb_uv": recipe.lsb_uv,
        "strip_s": recipe.strip_s,
        "window_s": recipe.window_s,
        "band_hz": [band.low_hz, band.high_hz],
        "band_order": band.order,
        "band_top_of_source_rate": band.top_of_source_rate,
        "notch_q": notch.q,
        "notch_min_rate_ratio": notch.min_source_rate_ratio,
        "pad_s": band.pad_s,
        "max_gap_s": recipe.required(steps.FillGaps).max_gap_s,
        "source_rate_hz": list(check.source_rate_hz),
        "max_denominator": check.max_denominator,
        "low_rate_hz": _LOW_RATE_HZ,
        "amplitude_mv": list(recipe.required(steps.CheckAmplitude).amplitude_mv),
    }
    # What the flat fields cannot say would be lost: such a recipe is written as steps.
    return flat if _recipe_of_flat(flat) == recipe else recipe.model_dump(mode="json")


def _recipe_of_flat(flat: dict[str, Any]) -> Recipe:
    """Return the recipe that the flat fields of format 1 mean. Raises KeyError, TypeError or ValueError for others."""
    ends = {"ends": "even", "pad_s": flat["pad_s"]}
    low_hz, high_hz = flat["band_hz"]
    return Recipe(
        name=flat["name"],
        steps=(
            steps.CheckRate(source_rate_hz=flat["source_rate_hz"], max_denominator=flat["max_denominator"]),
            steps.SelectLeads(leads=flat["leads"]),
            steps.FillGaps(max_gap_s=flat["max_gap_s"]),
            steps.Trim(),
            steps.Cut(strip_s=flat["strip_s"], window_s=flat["window_s"]),
            steps.Resample(rate_hz=flat["rate_hz"]),
            steps.BandPass(
                low_hz=low_hz,
                high_hz=high_hz,
                order=flat["band_order"],
                top_of_source_rate=flat["band_top_of_source_rate"],
                **ends,
            ),
            steps.Notch(q=flat["notch_q"], min_source_rate_ratio=flat["notch_min_rate_ratio"], joined=True, **ends),
            steps.CheckAmplitude(amplitude_mv=flat["amplitude_mv"]),
            steps.Store(lsb_uv=flat["lsb_uv"]),
        ),
    )
