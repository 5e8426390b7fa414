"""Make keyed pseudonyms, the only form in which an id leaves the input.

A plain hash of an eight-digit record number is undone by trying all of them; a keyed one is not.
"""

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import KeyMismatch, SpecError

log = logging.getLogger(__name__)
KEY_BYTES = 32
PSEUDONYM_BYTES = 16

Kind = Literal["patient", "recording", "order"]


@dataclass(frozen=True)
class PseudonymKey:
    """A secret of at least 32 bytes. Its fingerprint may be published, the secret may not."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < KEY_BYTES:
            raise SpecError(f"found a pseudonym key of {len(self.secret)} bytes, expected at least {KEY_BYTES}.")

    @property
    def fingerprint(self) -> str:
        """Return what may be published of the key: 128 bits that tell two keys apart and reveal neither."""
        return hmac.new(self.secret, b"ecgcohorts key fingerprint", hashlib.sha256).hexdigest()[:32]

    def pseudonym(self, cohort: str, kind: Kind, identifier: str) -> bytes:
        """Return HMAC-SHA256(key, cohort 0 kind 0 id), first 128 bits; the id is NFC-normalised and stripped.

        Leading zeros are kept: `007` and `7` are two patients unless the cohort description says otherwise.
        """
        # The cohort is hashed too: number 17 of one hospital is not number 17 of another. The id stands last, so that no two
        # triples give the same text, whatever it holds.
        text = "\0".join((cohort, kind, unicodedata.normalize("NFC", identifier).strip()))
        return hmac.new(self.secret, text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()[:PSEUDONYM_BYTES]

    def derived(self, purpose: str) -> bytes:
        """Return another key, of 32 bytes, that tells nothing about this one."""
        return hmac.new(self.secret, f"ecgcohorts {purpose}".encode(), hashlib.sha256).digest()

    def store_order(self, cohort: str, patients: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the order in which a segment holds patients, given their pseudonyms, uint8 (patient, 16).

        It is that of a keyed digest: no reader sees site or date drift, and the order tells nothing about the ids.
        """
        digests = bytearray()  # `join` would hold all of them as objects, at four times the memory
        for patient in patients:
            digests += self.pseudonym(cohort, "order", patient.tobytes().hex())
        words = np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)
        return np.lexsort((words[:, 1], words[:, 0]))


def _default_key_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "ecgcohorts" / "pseudonym.key"


def load_key(path: Path | None = None, *, for_new_store: bool = True) -> PseudonymKey:
    """Read a key file (hexadecimal text); without a path, the default key.

    for_new_store: make the default key, with mode 0600, if there is none, and warn of a key that others can read; both are
    logged. Otherwise the key must be there. Raises SpecError if a named file is missing or is not a key, KeyMismatch if
    the default key is missing and must not be made.
    """
    if path is None:
        path = _default_key_path()
        if for_new_store:
            _make_once(path)
        elif not path.exists():
            raise KeyMismatch(
                f"found no pseudonym key {path}, expected the one that the store was made with. Pass it: --key FILE."
            )
    try:
        text = path.read_text("ascii").strip()
        key = PseudonymKey(bytes.fromhex(text))
        # Not at every run: what is said each time is read never. Windows keeps rights elsewhere, and says 0666 of any file.
        if for_new_store and os.name == "posix" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            log.warning(
                "the pseudonym key %s can be read by other users: with it and a list of ids, pseudonyms are undone. "
                "Take their right away: chmod 600 %s",
                path,
                path,
            )
        return key
    except FileNotFoundError:
        raise SpecError(
            f"found no key file {path}. Make one: (umask 077; openssl rand -hex 32 > {path.name})"
        ) from None
    except (ValueError, OSError):
        raise SpecError(
            f"{path} is no key file: it must hold one line of hexadecimal text."
        ) from None  # never its content


def _make_once(path: Path) -> None:
    """Create the key whole or not at all."""
    if path.exists():
        return
    # Written aside, then linked: linking fails if another process was faster, so all runs of a user share the first key,
    # and nobody reads half of one.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(aside, path)
        log.warning(
            "made a pseudonym key: %s. Without it nobody can add recordings to the stores made with it, look one up or remove a "
            "patient, and no store holds it. Copy it now to where you keep passwords, not into the folder of a store.",
            path,
        )
    aside.unlink()
