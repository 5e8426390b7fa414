"""Writing the CohortIndex of a generation as plain Zarr arrays, one a column."""

from pathlib import Path

import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from ecgcohorts.index import CohortIndex
from ecgcohorts.store.schema import index_folder

_CHUNK_RECORDS = 1 << 18  # 2 MB of an int64 column


def write_index(store: Path, generation: int, index: CohortIndex) -> None:
    """Write every column of `index`; each chunk carries its crc32c. Codes are explained in the group's attributes."""
    root = zarr.create_group(store / index_folder(generation), zarr_format=3, overwrite=True)
    root.update_attributes(
        {
            "cohorts": list(index.cohorts),
            "sites": list(index.sites),
            "devices": list(index.devices),
            "sex": ["male", "female"],
        }
    )
    for name, column in sorted(index.columns.items()):
        array = root.create_array(
            name,
            shape=column.shape,
            dtype=column.dtype,
            chunks=(min(max(len(column), 1), _CHUNK_RECORDS), *column.shape[1:]),
            serializer=BytesCodec(endian="little" if column.dtype.itemsize > 1 else None),
            compressors=[BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        array[...] = column
