"""Remember which files a store's recordings were read from, in a file beside the store that only its owner may read.

It holds pseudonyms and keyed hashes of paths, sizes, times and waveforms. Without it nothing is wrong, but slower: an update then
decodes all, and an incremental run opens all. It follows no snapshot; what a store has, and which waveform, is asked of the store.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.ingest._aside import _drop_unfinished, _open_aside
from ecgcohorts.ingest._ids import PSEUDONYM, _places_of, as_keys, ids_of
from ecgcohorts.io.durable import drop, machine_errors, sync_folder
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES

_VERSION = {b"ecgcohorts.seen": b"2"}  # 2: the state of a file covers those read with it
_COLUMNS = ("file", "content", "rules")
_NO_WAVEFORM = bytes(PSEUDONYM_BYTES)
_AT_ONCE, _ROWS_AT_ONCE = 1 << 12, 1 << 16  # recordings, hashed and written


@dataclass(frozen=True, eq=False)
class _Seen:
    """Recordings by pseudonym, (recording, 16) uint8, and for each three keyed hashes, uint64."""

    recording: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, PSEUDONYM_BYTES), np.uint8))
    file: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # state and description
    content: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # state, waveform; 0: unknown
    rules: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # what else decides a signal

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what was remembered; nothing if the file is not there, damaged, or of another version."""
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            if not _VERSION.items() <= (table.schema.metadata or {}).items():
                return cls()
            return cls(ids_of(table["recording"]), *(table[name].to_numpy() for name in _COLUMNS))
        except (OSError, pa.ArrowException, KeyError):
            return cls()

    def save(self, path: Path) -> None:
        """Replace the file, whole or not at all."""
        ids = np.ascontiguousarray(self.recording)
        column = pa.FixedSizeBinaryArray.from_buffers(PSEUDONYM, len(ids), [None, pa.py_buffer(ids)])
        table = pa.table({"recording": column, **{name: pa.array(getattr(self, name)) for name in _COLUMNS}})
        _drop_unfinished(path)
        with machine_errors(path):
            aside, handle = _open_aside(path)
        try:
            with machine_errors(path):
                with os.fdopen(handle, "wb") as file:
                    table = table.replace_schema_metadata(_VERSION)
                    # Hashes repeat nowhere: dictionaries of a million would take 300 bytes a recording.
                    with pq.ParquetWriter(
                        file,
                        table.schema,
                        use_dictionary=False,
                        compression="zstd",
                        write_page_checksum=True,
                        write_statistics=False,
                    ) as writer:
                        writer.write_table(table, row_group_size=_ROWS_AT_ONCE)
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(aside, path)  # before the lock goes
                sync_folder(path.parent)
        finally:
            drop(aside)

    def places(self, ids: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return where each recording stands; -1 for one that is not remembered."""
        return _places_of(ids, self.recording)

    def contents(self, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return what is remembered of contents; 0 if nothing is."""
        return np.append(self.content, np.uint64(0))[places]

    def known_files(self, met: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the files of which a store has met every recording, sorted, and how many these are. met: their ids."""
        file, number, count = np.unique(self.file, return_inverse=True, return_counts=True)
        there = np.isin(as_keys(self.recording), as_keys(met))
        whole = np.bincount(number[there], minlength=len(file)) == count
        return file[whole], count[whole]

    def with_new(self, new: Self) -> Self:
        """Return this with other recordings added, or in place of what was remembered of them."""
        if not len(self.recording):
            return new
        kept = ~np.isin(as_keys(self.recording), as_keys(new.recording))
        names = ("recording", *_COLUMNS)
        return type(self)(*(np.concatenate([getattr(self, name)[kept], getattr(new, name)]) for name in names))


@dataclass(frozen=True)
class _Hashes:
    """The keyed hashes of one description and the versions that read by it."""

    key: bytes = field(repr=False)
    spec_sha256: str
    rule_texts: Mapping[str, str]  # by cohort

    def file(self, mark: int) -> int:
        """Of a file, by its mark, as this description reads it."""
        return self._hash("file", str(mark), self.spec_sha256)

    def content(self, mark: int, waveform: bytes = _NO_WAVEFORM) -> int:
        """Of a file, by its mark, and the waveform of a stored recording in it; other recordings have none."""
        return self._hash("content", str(mark), waveform.hex())

    def rules(self, cohort: str) -> int:
        """Of all that decides a signal beside the file."""
        return self._hash("rules", self.rule_texts[cohort])

    def _hash(self, *texts: str) -> int:
        # BLAKE2b is several times as fast as HMAC, and a run asks for one a recording.
        text = "\0".join(texts).encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self.key).digest(), "little")

    def of(self, cohort: str, ids: NDArray[np.uint8], marks: NDArray[np.uint64], index: CohortIndex) -> _Seen:
        """Return what is to be remembered of recordings of one cohort, given the index that has those stored."""
        entry = _places_of(ids, index["recording_id"])
        file, content = np.empty(len(ids), np.uint64), np.empty(len(ids), np.uint64)
        for start in range(0, len(ids), _AT_ONCE):  # as objects, marks and hashes take many times their memory
            some = slice(start, start + _AT_ONCE)
            waveforms = np.zeros_like(ids[some])
            stored = entry[some] >= 0
            waveforms[stored] = index["waveform_digest"][entry[some][stored]]
            own = marks[some].tolist()
            file[some] = [self.file(mark) for mark in own]
            content[some] = [self.content(mark, one.tobytes()) for mark, one in zip(own, waveforms, strict=True)]
        return _Seen(ids, file, content, np.full(len(ids), self.rules(cohort), np.uint64))
