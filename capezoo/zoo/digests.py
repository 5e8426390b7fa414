"""Waveform digests of training recordings: those of a weight folder, and which recordings of an index are among them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capezoo.zoo.files import DIGEST_BYTES, DIGESTS, read_card
from ecgcohorts.errors import SourceError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.io.durable import sha256_of


def training_digests(folder: Path) -> NDArray[np.uint8] | None:
    """Return (record, 16) waveform digests of all training recordings of a weight folder; None if it has none.

    Raises SourceError unless they are those the card names.
    """
    path, training = folder / DIGESTS, read_card(folder).training
    wanted = training.record_digests if training else None
    if not path.is_file():
        if wanted:
            raise SourceError(f"{path}: found no such file, expected the one the card names. Fetch the folder again.")
        return None
    data = np.fromfile(path, np.uint8)
    if len(data) % DIGEST_BYTES or (wanted and sha256_of(path) != wanted):
        raise SourceError(f"{path}: found {len(data)} bytes, expected those the card names. Fetch the folder again.")
    return data.reshape(-1, DIGEST_BYTES)


def seen(index: CohortIndex, trained_on: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for each entry of an index whether it was trained on, and whether any entry of its patient was."""
    # Waveforms, not ids: the same recording under another name or in another cohort counts as seen.
    record = np.isin(_whole(index["waveform_digest"]), _whole(trained_on))
    return record, np.isin(index["patient"], index["patient"][record])


def _whole(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    """View (record, 16) bytes as one value a record, so that numpy compares whole digests."""
    # Compared byte by byte, np.isin would find any byte that occurs anywhere.
    return np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}").reshape(-1)
