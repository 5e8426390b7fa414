"""Waveform digests of training recordings: those of a weight folder, and which recordings of an index are among them.

Plain digests tell everybody who holds a recording whether weights were trained on it. Keyed ones (HMAC-SHA256 of each)
tell it only to who holds the key.
"""

import hmac
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capezoo.zoo.files import DIGEST_BYTES, DIGESTS, read_card
from ecgcohorts.errors import KeyMismatch, SourceError
from ecgcohorts.io.durable import sha256_of
from ecgcohorts.privacy.pseudonyms import PseudonymKey

if TYPE_CHECKING:
    # Brings pandas, which loading weights does without.
    from ecgcohorts.index.cohort_index import CohortIndex


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


def plain_digests(folder: Path) -> NDArray[np.uint8] | None:
    """Return (record, 16) digests as `training_digests` does; None also if they are keyed."""
    rows, training = training_digests(folder), read_card(folder).training
    return None if training is None or training.digest_key is not None else rows


def _keyed(digests: NDArray[np.uint8], key: PseudonymKey) -> NDArray[np.uint8]:
    """Return HMAC-SHA256 of each digest, first 128 bits, in the order of the digests: (record, 16) of both."""
    # A use of its own, so that the key of a store can serve: no pseudonym is ever made of such a text.
    made = (hmac.new(key.secret, b"capezoo training digest\0" + row.tobytes(), sha256).digest() for row in digests)
    return np.frombuffer(b"".join(one[:DIGEST_BYTES] for one in made), np.uint8).reshape(-1, DIGEST_BYTES)


def trained_on(folder: Path, index: "CohortIndex", key: PseudonymKey | None = None) -> NDArray[np.uint8] | None:
    """Return plain digests (record, 16) of training recordings, as far as they are in the index; None if nobody can tell.

    key: of keyed digests; without it nobody can. Raises SourceError as `training_digests`, KeyMismatch for another key.
    """
    rows, training = training_digests(folder), read_card(folder).training
    if rows is None or training is None or training.digest_key is None:
        return rows
    if key is None:
        return None
    if key.fingerprint != training.digest_key:
        raise KeyMismatch(f"{folder}: found digests of another key ({training.digest_key[:8]}), expected those of the key "
                          f"that was given ({key.fingerprint[:8]}). Give the key they were published with.")  # fmt: skip
    mine = index["waveform_digest"]
    return mine[np.isin(_whole(_keyed(mine, key)), _whole(rows))]


def seen(index: "CohortIndex", trained_on: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for each entry of an index whether it was trained on, and whether any entry of its patient was."""
    # Waveforms, not ids: the same recording under another name or in another cohort counts as seen.
    record = np.isin(_whole(index["waveform_digest"]), _whole(trained_on))
    return record, np.isin(index["patient"], index["patient"][record])


def _whole(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    """View (record, 16) bytes as one value a record, so that numpy compares whole digests."""
    # Compared byte by byte, np.isin would find any byte that occurs anywhere.
    return np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}").reshape(-1)
