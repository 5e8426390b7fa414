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

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ecgcohorts.errors import StoreError, is_of_machine
from ecgcohorts.io.durable import link_file, sha256_of
from ecgcohorts.io.place import Place
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.recording import MISSING
from ecgcohorts.store.signals.array_metadata import SHARD_RECORDS_LIMIT
from ecgcohorts.store.signals.chunks import CODEC_METADATA, CRC_BYTES, Codec
from ecgcohorts.store.upgrade import FORMAT_VERSION, recipe_fields

CURRENT = "CURRENT"
LOCK = "lock"
STAGING = ".staging"
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
    r"|\.staging/[0-9a-f]{32}/(plan|[a-z0-9_]+-\d+\.(shard|npz|on|begun|rows))?"
    r"|(.*/)?[^/]+\.[0-9a-f]{8}\.part"
)
# The files of a snapshot, which its manifest names. A name is joined to the store's folder and to that of a copy, so one
# with `..` would be read and written anywhere.
_NUMBERS = r"c(/\d{1,9})+"
_FILES = re.compile(
    r"((signals|index|splits)/)?zarr\.json|rejects-\d{6}\.parquet"
    rf"|signals/[a-z0-9_]{{1,100}}/(zarr\.json|\d{{6}}/(zarr\.json|{_NUMBERS}))"
    rf"|index/\d{{6}}/(zarr\.json|[A-Za-z0-9_]{{1,100}}/(zarr\.json|{_NUMBERS}))"
    rf"|splits/[a-z0-9][a-z0-9_-]{{0,63}}/(zarr\.json|\d{{6}}/(zarr\.json|(part|mark)/(zarr\.json|{_NUMBERS})))"
)


def _refuse_outside(name: str) -> str:
    if not _FILES.fullmatch(name):
        raise ValueError(f"found the name {name[:80]!r}, which no file of a store has")
    return name


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Cohort = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,100}$")]  # a folder here, and in what is exported
_File = Annotated[str, AfterValidator(_refuse_outside)]
_Column = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,100}$")]  # a folder too


class _Model(BaseModel):
    # Unknown keys are refused: a manifest of a later version must not be read as if it said nothing more.
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Model):
    """Size in bytes and SHA-256 of one file."""

    size: int = Field(ge=0)
    sha256: Sha256

    @classmethod
    def of_files(cls, store: Path, relative: list[str]) -> dict[str, Self]:
        """Return sizes and SHA-256 sums of files as they stand."""
        return {
            name: cls(size=(store / name).stat().st_size, sha256=sha256_of(store / name)) for name in sorted(relative)
        }

    def refuse_damaged(self, path: Path) -> None:
        """Raise StoreError for a file that is not what was committed: copied, its damage would pass for the original."""
        if sha256_of(path) != self.sha256:
            raise StoreError(f"{path}: content does not match its SHA-256. Restore the file from a copy first.")


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

    cohort: _Cohort
    name: Annotated[str, StringConstraints(pattern=r"^\d{6}$")]  # generation that wrote it
    first_row: int = Field(ge=0)  # store-global row of its row 0
    rows: int = Field(ge=0)
    shard_records: int = Field(gt=0, le=SHARD_RECORDS_LIMIT)
    accounting: Accounting
    licence: str = ""
    spec_sha256: Sha256

    @property
    def folder(self) -> str:
        return f"signals/{self.cohort}/{self.name}"

    @property
    def n_shards(self) -> int:
        return -(-self.rows // self.shard_records)

    @property
    def index_bytes(self) -> int:
        """Size of the index at the end of each shard, which has two numbers for every record."""
        return 16 * self.shard_records + CRC_BYTES


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
    generation: int = Field(gt=0, lt=1_000_000)  # six digits in names
    recipe: Recipe
    key_fingerprint: str
    segments: tuple[Segment, ...]
    cohorts: tuple[_Cohort, ...]
    sites: tuple[str, ...]
    devices: tuple[str, ...]
    index_columns: tuple[_Column, ...]
    versions: dict[str, str]  # of the libraries that decide bytes
    files: dict[_File, FileEntry]  # relative path -> what must stand there
    # Fields with a default came after the first stores; without one, those would no longer open.
    codec: Codec = "lz4"  # of all its signals
    removed: tuple[str, ...] = ()  # pseudonyms, in hexadecimal, of patients who must not come back
    earlier: tuple[Current, ...] = ()  # snapshots before, latest first; their files stay until `gc`

    @property
    def n_rows(self) -> int:
        return sum(segment.rows for segment in self.segments)

    @property
    def file_name(self) -> str:
        """Where it stands in its store."""
        return f"manifest-{self.generation:06d}.json"

    def contradiction(self) -> str | None:
        """Say where the parts of a manifest do not fit each other, in a few words; None if they do."""
        first_row = 0
        for segment in self.segments:
            # Rows size memory, so they are believed as far as files are there that can hold them.
            n_shards = min(segment.n_shards, len(self.files) + 1)
            shards = [f"{segment.folder}/c/{number}/0/0" for number in range(n_shards)]
            if any(name not in self.files for name in shards):
                return f"{segment.folder}: rows without a file"
            if any(self.files[name].size < segment.index_bytes for name in shards):
                return f"{segment.folder}: a file too small for its rows"
            if segment.first_row != first_row:
                return f"{segment.folder}: rows that do not follow those before"
            first_row += segment.rows
        numbers = [self.generation, *(one.generation for one in self.earlier)]
        if numbers != sorted(set(numbers), reverse=True):
            return "snapshots in another order than that of their numbers"
        return None

    def read_file(self, place: Place, name: str) -> bytes:
        """Read a whole file of the snapshot, its size and SHA-256 checked. Raises StoreError for any other content."""
        # Only what the manifest names is read, so that nothing reaches a parser before its SHA-256 was checked.
        entry = self.files.get(name)
        if entry is None:
            raise StoreError(f"{place}: the manifest names no {name}. Restore the store from a copy.")
        try:
            data = place.get(name, entry.size)
        except OSError as error:
            if is_of_machine(error):  # a full table of open files is no damage of the store
                raise
            what = error.strerror or "no such object"
            raise StoreError(f"{place}/{name}: found no readable file ({what}). Restore it from a copy.") from None
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise StoreError(f"{place}/{name}: content does not match its checksum. Restore it from a copy.")
        return data

    def check_files(self, place: Place) -> None:
        """Raise StoreError if a file of the snapshot is missing or has another size: absence must not read as data.

        A bucket is pinned to the objects that are found: signals read later come from these or not at all.
        """
        # Sizes only, since this runs at every opening; contents are for `verify`, and for whoever reads a file.
        sizes = place.pin(self.files)
        for name, entry in self.files.items():
            size = sizes.get(name)
            if size != entry.size:
                found = "no file" if size is None else f"{size} bytes"
                raise StoreError(
                    f"{place}/{name}: found {found}, expected {entry.size} bytes. Restore the file, or ingest again."
                )

    def carry_over(self, folder: Path, generation: int, without: tuple[str, ...] = ()) -> dict[str, FileEntry]:
        """Return the files as a later snapshot names them: all but those whose path begins with one of `without`.

        No file is read or copied: those whose names hold the number of the generation get a second name.
        """
        renamed = {
            f"{index_folder(self.generation)}/": f"{index_folder(generation)}/",
            rejects_name(self.generation): rejects_name(generation),
        }
        # A generation has its own folder of index columns, most of which do not change: links cost neither room nor
        # reading.
        files = {}
        for name, entry in self.files.items():
            if name.startswith(without):
                continue
            start = next((start for start in renamed if name.startswith(start)), "")
            new = renamed[start] + name.removeprefix(start) if start else name
            if new != name:
                link_file(folder / name, folder / new)
            files[new] = entry
        return files

    def to_bytes(self) -> bytes:
        """Return the file: in format 1 if the recipe is `cape-v1`, so that such stores keep their fingerprint."""
        fields = self.model_dump(mode="json") | {"recipe": recipe_fields(self.recipe)}
        if "steps" not in fields["recipe"]:
            fields["format_version"] = 1
        # Keys sorted: equal manifests are equal bytes, and have one fingerprint.
        return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode()


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
                **({"lsb_uv": recipe.lsb_uv} if recipe.unit == "mV" else {}),
                "scale_factor": recipe.lsb_uv / 1000,  # stored integer x scale_factor = value in `unit`
                "missing_value": MISSING,
            },
            "dimension_names": ["row", "lead", "time"],
            "storage_transformers": [],
        }
    )


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
