"""Export tar shards for WebDataset: for every recording a `.npy` with its strip and a `.json` with its index row."""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ecgcohorts.export.common import (
    SIGNALS,
    Parts,
    Progress,
    Samples,
    choose_parts,
    refuse_twins,
    signal_facts,
    whole_folder,
)
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.store.reader import AnyStore

# At most 256 MiB, 4,000 strips: our choice, which gives each worker several shards from 100,000 strips on.
SHARD_BYTES = 1 << 28
# Repeated in every sample, so that a sample says by itself how to read it.
_IN_JSON = ("lsb_uv", "unit", "scale_factor", "rate_hz", "leads")

_Members = tuple[tuple[str, bytes], ...]  # of one sample: name, content


def export_webdataset(
    store: AnyStore, out: Path, progress: Progress | None = None, *, parts: Parts | None = None
) -> int:
    """Write OUT/<part>-000000.tar ... and OUT/signals.json. Return the number of recordings.

    A sample is <cohort>/<recording id>.npy, int16 (lead, time), and .json. Shards take at most SHARD_BYTES and hold whole
    samples in index order, so the recordings of a patient are neighbours. parts: by default one part with all recordings.
    Holds READ_AT_ONCE strips in memory. The same store gives the same bytes. Raises SourceError if OUT exists or lies in
    the store, SpecError for an empty part, StoreError if two recordings of a cohort share an id.
    """
    parts, told = choose_parts(store, parts, progress)
    for index in parts.values():
        refuse_twins(index)
    facts = signal_facts(store)
    shared = {key: facts[key] for key in _IN_JSON if key in facts}

    def packed(index: CohortIndex) -> Iterator[_Members]:
        for some in Samples.read(store, index):
            yield from _packed(some, shared)
            told(len(some))

    with whole_folder(store, out) as folder:
        for name, index in parts.items():
            _write_shards(folder / name, packed(index))
        (folder / SIGNALS).write_text(json.dumps(facts, indent=1) + "\n", encoding="ascii")
    return sum(len(index) for index in parts.values())


def _packed(samples: Samples, shared: dict[str, object]) -> Iterator[_Members]:
    names = list(samples.columns)
    for strip, values in zip(samples.strips, zip(*samples.columns.values(), strict=True), strict=True):
        row = dict(zip(names, values, strict=True))
        key = f"{row['cohort']}/{row['recording_id']}"
        array = io.BytesIO()
        np.save(array, strip, allow_pickle=False)
        yield (f"{key}.npy", array.getvalue()), (f"{key}.json", json.dumps(row | shared).encode("ascii"))


def _write_shards(stem: Path, samples: Iterator[_Members]) -> None:
    """Write stem-000000.tar and so on. A sample that would make a shard too large begins the next one."""
    number = 0
    with ExitStack() as one_open:
        tar = None
        for members in samples:
            if tar is None or tar.offset + sum(_blocks(data) for _, data in members) > SHARD_BYTES - tarfile.RECORDSIZE:
                one_open.close()
                path = stem.with_name(f"{stem.name}-{number:06d}.tar")
                tar = one_open.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
                number += 1
            for name, data in members:
                # Time 0 and no owner, so that the bytes do not depend on when and by whom they are written.
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _blocks(data: bytes) -> int:
    """Return the bytes that a file takes in a tar: a header and whole blocks."""
    return tarfile.BLOCKSIZE * (1 + -(-len(data) // tarfile.BLOCKSIZE))
