"""A split from elsewhere is refused within 1 s of the processor and 256 MB: R15, for what a store keeps beside its index."""

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np
import pytest
from numcodecs import blosc

import ecgcohorts as ec
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.index import splits
from ecgcohorts.store import load_split, save_split
from ecgcohorts.store.columns import _CHUNK_RECORDS

SECONDS, MEBIBYTES = 1.0, 256
HOME = "splits/a/000004"


def _definition(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    def make(store: Any) -> None:
        group = json.loads((store.folder / HOME / "zarr.json").read_bytes())
        change(group["attributes"]["split"])
        store.put(f"{HOME}/zarr.json", json.dumps(group).encode())

    return make


def _brackets(store: Any) -> None:
    text = (store.folder / HOME / "zarr.json").read_text()
    store.put(
        f"{HOME}/zarr.json", text.replace('"split":', '"split":' + "[" * 200_000 + "]" * 200_000 + ', "x":').encode()
    )


def _long_column(name: str, kind: str, chunks: int = 600) -> Callable[[Any], None]:
    """A column of 157 million rows in 600 files that pack to almost nothing."""

    def make(store: Any) -> None:
        metadata = json.loads((store.folder / HOME / name / "zarr.json").read_bytes())
        metadata["shape"] = [chunks * _CHUNK_RECORDS]
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [_CHUNK_RECORDS]
        metadata["data_type"] = kind
        store.put(f"{HOME}/{name}/zarr.json", json.dumps(metadata).encode())
        packed = blosc.compress(np.zeros(_CHUNK_RECORDS, kind), b"zstd", 5, blosc.SHUFFLE)
        data = packed + int(google_crc32c.value(packed)).to_bytes(4, "little")
        for number in range(chunks):
            store.put(f"{HOME}/{name}/c/{number}", data)

    return make


def _endless_column(store: Any) -> None:
    metadata = json.loads((store.folder / HOME / "part" / "zarr.json").read_bytes())
    metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10**18], [1]
    store.put(f"{HOME}/part/zarr.json", json.dumps(metadata).encode())


CASES: dict[str, Callable[[Any], None]] = {
    "200,000 brackets": _brackets,
    "200,000 parts": _definition(
        lambda split: split["rule"].update(fractions={f"p{number}": 1 / 200_000 for number in range(200_000)})
    ),
    "a name of a megabyte": _definition(lambda split: split.update(name="a" * 1_000_000)),
    "an integer of 100,000 digits": _definition(lambda split: split.update(seed=["9"] * 100_000)),
    "parts of 157 million rows": _long_column("part", "int8"),
    "parts of 157 million doubles": _long_column("part", "float64"),
    "marks of 157 million rows": _long_column("mark", "uint16"),
    "parts of 10^18 rows": _endless_column,
}


@pytest.mark.parametrize("case", CASES)
def test_a_split_is_refused_at_little_cost(hostile: Any, case: str) -> None:
    save_split(hostile.folder, splits.by_patient(ec.open(hostile.folder).index, {"train": 0.5, "test": 0.5}, "a"))
    again = type(hostile)(hostile.folder)
    CASES[case](again)
    store = ec.open(again.seal())
    begun = time.process_time()
    with pytest.raises(StoreError, match=r"Restore|Use the version") as caught:
        load_split(store, "a")
    assert time.process_time() - begun < SECONDS
    assert len(str(caught.value)) < 1500
    tracemalloc.start()
    try:
        with pytest.raises(StoreError):
            load_split(store, "a")
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTES << 20
    finally:
        tracemalloc.stop()


def test_a_split_of_more_parts_than_a_byte_counts_is_refused(hostile: Any) -> None:
    index = ec.open(hostile.folder).index
    assert len(splits.by_patient(index, {f"p{number}": 1 / 127 for number in range(127)}, "a").definition.parts) == 127
    with pytest.raises(SpecError, match="127"):
        splits.by_patient(index, {f"p{number}": 1 / 128 for number in range(128)}, "a")
