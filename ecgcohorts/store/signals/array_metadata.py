"""Parse `zarr.json` of a signal array: one layout is read, and nothing is guessed.

Source: the Zarr v3 core specification and its `sharding_indexed` codec, version 1.0; names of codecs as in numcodecs.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ecgcohorts.errors import StoreError, expectation

# Bounds of what is believed: a metadata file must not make us allocate at will. Our choice, far above any store here.
METADATA_LIMIT = 1 << 20
SHARD_RECORDS_LIMIT = 1 << 20
RECORD_BYTES_LIMIT = 1 << 26
ROWS_LIMIT = 1 << 32

REMEDY = "Restore this file from a copy, or ingest the cohort again; `ecgcohorts verify` lists every damaged file."

CODEC_CHAINS = {  # inner codecs in their order -> what decodes them
    ("bytes", "blosc", "crc32c"): "blosc",
    ("bytes", "crc32c"): "plain",
    ("numcodecs.pcodec", "crc32c"): "pcodec",
}


# Unknown keys and numbers as text are refused: an array that means something more must not be read as if it did not.
class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Little(_Strict):
    endian: Literal["little"]


class _BytesCodec(_Strict):
    name: Literal["bytes"]
    configuration: _Little


class _BloscConfiguration(_Strict):
    """The frame says all that decoding needs; these are only checked to be blosc's."""

    typesize: int = 1
    cname: Literal["lz4", "lz4hc", "blosclz", "zstd", "zlib"]
    clevel: int
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"]
    blocksize: int = 0


class _BloscCodec(_Strict):
    name: Literal["blosc"]
    configuration: _BloscConfiguration


class _Empty(_Strict):
    pass


class _Crc32cCodec(_Strict):
    name: Literal["crc32c"]
    configuration: _Empty = _Empty()


class _PcodecCodec(_Strict):
    """The bytes say all that decoding needs."""

    name: Literal["numcodecs.pcodec"]
    configuration: dict[str, Any] = {}


_Codec = Annotated[_BytesCodec | _BloscCodec | _PcodecCodec | _Crc32cCodec, Field(discriminator="name")]
_Extent = Annotated[int, Field(ge=1, le=ROWS_LIMIT)]
_Shape = tuple[_Extent, _Extent, _Extent]


class _Sharding(_Strict):
    chunk_shape: _Shape
    codecs: tuple[_Codec, ...]
    index_codecs: tuple[_BytesCodec, _Crc32cCodec]
    index_location: Literal["end"] = "end"


class _ShardingCodec(_Strict):
    name: Literal["sharding_indexed"]
    configuration: _Sharding


class _Separator(_Strict):
    separator: Literal["/"] = "/"


class _KeyEncoding(_Strict):
    name: Literal["default"]
    configuration: _Separator = _Separator()


class _GridShape(_Strict):
    chunk_shape: _Shape


class _Grid(_Strict):
    name: Literal["regular"]
    configuration: _GridShape


class _ArrayMetadata(_Strict):
    """The one layout this reader reads; anything else is refused, never guessed."""

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: tuple[Annotated[int, Field(ge=0, le=ROWS_LIMIT)], _Extent, _Extent]
    data_type: Literal["int16"]
    chunk_grid: _Grid
    chunk_key_encoding: _KeyEncoding
    fill_value: Annotated[int, Field(ge=-(2**15), lt=2**15)]
    codecs: tuple[_ShardingCodec]
    attributes: dict[str, Any] = {}
    dimension_names: tuple[str | None, ...] | None = None
    storage_transformers: tuple[()] = ()

    @property
    def codec_names(self) -> tuple[str, ...]:
        """Codecs of the inner chunks, in the order in which they were applied."""
        return tuple(codec.name for codec in self.codecs[0].configuration.codecs)


def _parse_metadata(text: bytes, path: str) -> _ArrayMetadata:
    """Parse and check zarr.json. Raises StoreError naming the first key that differs from the layout read here."""
    if len(text) > METADATA_LIMIT:
        raise StoreError(f"{path}: found {len(text)} bytes of metadata, expected at most {METADATA_LIMIT}. {REMEDY}")
    try:
        metadata = _ArrayMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        found = repr(first["input"])[:80]
        raise StoreError(
            f"{path}: found {found} at {where}, expected another value ({expectation(first)}). {REMEDY}"
        ) from None
    problem = _problem(metadata)
    if problem:
        raise StoreError(f"{path}: {problem}. Open it with zarr, or ingest the cohort again.")
    return metadata


def _problem(metadata: _ArrayMetadata) -> str | None:
    """Name what the types cannot rule out: shapes that do not fit, codecs in another order."""
    # One record an inner chunk is what makes one read and one checksum a record.
    records, *record = metadata.chunk_grid.configuration.chunk_shape
    sharding = metadata.codecs[0].configuration
    if tuple(record) != metadata.shape[1:] or sharding.chunk_shape != (1, *metadata.shape[1:]):
        return f"found inner chunks {sharding.chunk_shape}, expected one record {(1, *metadata.shape[1:])}"
    if records > SHARD_RECORDS_LIMIT or 2 * record[0] * record[1] > RECORD_BYTES_LIMIT:
        return f"found shards of {records} records of {record}, expected fewer than {SHARD_RECORDS_LIMIT} smaller ones"
    if metadata.codec_names not in CODEC_CHAINS:
        known = "; or ".join(", ".join(chain) for chain in CODEC_CHAINS)
        return f"found codecs {', '.join(metadata.codec_names)}, expected {known}"
    return None
