"""The layout of a store, and the manifest that names every file of a snapshot.

STORE/CURRENT                                  name and sha256 of the manifest in force
STORE/manifest-000001.json                     this module's Manifest
STORE/zarr.json, signals/.../zarr.json         plain Zarr v3 groups and arrays
STORE/signals/<cohort>/<segment>/c/<shard>/0/0 int16 (row, lead, time), one record an inner chunk
STORE/index/000001/<column>/                   the CohortIndex, one array a column
STORE/rejects-000001.parquet                   what was refused, and why
STORE/splits/<name>/000001/{part,mark}/        a split by name: one code a row
STORE/lock                                     held by the one writer: a flock; in a bucket, an object that is there meanwhile
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ecgcohorts.preprocess import steps
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.recording import MISSING
from ecgcohorts.store.signals.chunks import CODEC_METADATA, Codec

FORMAT_VERSION = 2  # 1 had one recipe, as flat fields; stores of `cape-v1` are still written so, byte for byte
CURRENT = "CURRENT"
LOCK = "lock"
STAGING = ".staging"
# The steps that the flat fields of format 1 describe.
_FLAT_STEPS = (
    steps.CheckRate, steps.SelectLeads, steps.FillGaps, steps.Trim, steps.Cut, steps.Resample, steps.BandPass, steps.Notch,
    steps.CheckAmplitude, steps.Store,
)  # fmt: skip
_LOW_RATE_HZ = 100.0  # a field of format 1; the quality flag that it named is a fact of the source, not of a recipe
DEFAULT_SHARD_RECORDS = 4096  # 5.2 M records make 1,271 files of about 100 MB

# Every path a store may hold, staging and half-written files included. A folder ends with a slash. What does not fit is
# never deleted, and a store is never written into a folder that holds any of it.
_CHUNK = r"zarr\.json|c/(\d+/)*(\d+)?"
OUR_PATHS = re.compile(
    r"CURRENT|lock|zarr\.json|manifest-\d{6}\.json|rejects-\d{6}\.parquet"
    r"|(signals|index|splits|\.staging)/(zarr\.json)?"
    rf"|signals/[a-z0-9_]+/(zarr\.json|\d{{6}}/({_CHUNK})?)?"
    rf"|index/\d{{6}}/(zarr\.json|\w+/({_CHUNK})?)?"
    rf"|splits/[a-z0-9_-]+/(zarr\.json|\d{{6}}/(zarr\.json|(part|mark)/({_CHUNK})?)?)?"
    r"|\.staging/[0-9a-f]{32}/(plan|[a-z0-9_]+-\d+\.(shard|npz|on))?"
    r"|(.*/)?[^/]+\.[0-9a-f]{8}\.part"
)
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    # Unknown keys are refused: a manifest of a later version must not be read as if it said nothing more.
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Model):
    """Size in bytes and SHA-256 of one file."""

    size: int = Field(ge=0)
    sha256: Sha256


class Accounting(_Model):
    """Every input of one ingest run, once: inputs = stored + duplicates + all rejected."""

    inputs: int
    stored: int
    duplicates: int
    rejected: dict[str, int]

    def balanced(self) -> bool:
        """Say whether every input is accounted for."""
        return self.inputs == self.stored + self.duplicates + sum(self.rejected.values())

    @classmethod
    def total(cls, parts: "Iterable[Accounting]") -> "Accounting":
        """Add up several runs or cohorts."""
        counts, rejected = Counter[str](), Counter[str]()
        for part in parts:
            counts.update(inputs=part.inputs, stored=part.stored, duplicates=part.duplicates)
            rejected.update(part.rejected)
        return cls(
            inputs=counts["inputs"],
            stored=counts["stored"],
            duplicates=counts["duplicates"],
            rejected=dict(sorted(rejected.items())),
        )


class Segment(_Model):
    """One immutable signal array: what one ingest run added to one cohort."""

    cohort: str
    name: str  # generation that wrote it
    first_row: int = Field(ge=0)  # store-global row of its row 0
    rows: int = Field(ge=0)
    shard_records: int = Field(gt=0)
    accounting: Accounting
    licence: str = ""
    spec_sha256: Sha256

    @property
    def folder(self) -> str:
        return f"signals/{self.cohort}/{self.name}"


class Current(_Model):
    """Names a manifest. In the file CURRENT, the one in force; in a manifest, one before it."""

    manifest: Annotated[str, StringConstraints(pattern=r"^manifest-\d{6}\.json$")]
    sha256: Sha256

    @property
    def generation(self) -> int:
        return int(self.manifest[len("manifest-") : -len(".json")])


class Manifest(_Model):
    """One snapshot of a store. Holds no time, host, user or path outside the store."""

    format_version: int = FORMAT_VERSION
    generation: int
    recipe: Recipe
    key_fingerprint: str
    segments: tuple[Segment, ...]
    cohorts: tuple[str, ...]
    sites: tuple[str, ...]
    devices: tuple[str, ...]
    index_columns: tuple[str, ...]
    versions: dict[str, str]  # of the libraries that decide bytes
    files: dict[str, FileEntry]  # relative path -> what must stand there
    # Fields with a default came after the first stores; without one, those would no longer open.
    codec: Codec = "lz4"  # of all its signals
    removed: tuple[str, ...] = ()  # pseudonyms, in hexadecimal, of patients who must not come back
    earlier: tuple[Current, ...] = ()  # snapshots before, latest first; their files stay until `gc`

    @property
    def n_rows(self) -> int:
        return sum(segment.rows for segment in self.segments)

    def to_bytes(self) -> bytes:
        """Return the file: in format 1 if the recipe is `cape-v1`, so that such stores keep their fingerprint."""
        fields = self.model_dump(mode="json") | {"recipe": recipe_fields(self.recipe)}
        if "steps" not in fields["recipe"]:
            fields["format_version"] = 1
        return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode()


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
    return flat if recipe_of_flat(flat) == recipe else recipe.model_dump(mode="json")


def recipe_of_flat(flat: dict[str, Any]) -> Recipe:
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


def manifest_name(generation: int) -> str:
    return f"manifest-{generation:06d}.json"


def rejects_name(generation: int) -> str:
    return f"rejects-{generation:06d}.parquet"


def index_folder(generation: int) -> str:
    return f"index/{generation:06d}"


def group_metadata(attributes: dict[str, Any] | None = None) -> bytes:
    """Return `zarr.json` of a Zarr v3 group."""
    return _json({"zarr_format": 3, "node_type": "group", "attributes": attributes or {}})


def signals_metadata(rows: int, shard_records: int, recipe: Recipe, codec: Codec = "lz4") -> bytes:
    """Return `zarr.json` of a signal array, which any Zarr v3 implementation reads that knows its codecs."""
    chunk = [1, len(recipe.leads), recipe.strip_samples]
    sharding = {
        "chunk_shape": chunk,
        "codecs": CODEC_METADATA[codec],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return _json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *chunk[1:]],
            "data_type": "int16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard_records, *chunk[1:]]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            # A chunk that was never written reads as the missing value, and so does a refused recording.
            "fill_value": MISSING,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {
                "recipe": recipe.name,
                "leads": list(recipe.leads),
                "rate_hz": recipe.rate_hz,
                "unit": recipe.unit,
                "lsb_uv": recipe.lsb_uv,
                "scale_factor": recipe.lsb_uv / 1000,  # stored integer x scale_factor = mV
                "missing_value": MISSING,
            },
            "dimension_names": ["row", "lead", "time"],
            "storage_transformers": [],
        }
    )


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
