"""What no ECG exceeds. Declared numbers are checked against these bounds before memory is taken for them."""

import math

from ecgcohorts.errors import Reason, UnreadableRecording

# Lengths and counts in a file are claims of its writer: 1.4 kB of HDF5 can declare 3.9 GB, 128 bytes of .npy 3.6 TiB.
MAX_LEADS = 64
MAX_SECONDS = 4 * 3600.0  # per lead
MAX_SAMPLES = 1 << 27  # over all leads; our default: 512 MiB as int32
TAKE_WINDOWS = "Cut it, or ingest `windows` of it, which ISHNE, EDF and WFDB are read in (docs/cohorts.md)."
LOWEST_HZ, HIGHEST_HZ = 1.0, 100_000.0  # our default: slower is no ECG, and nothing samples skin faster


def check_rate(rate_hz: float, where: str) -> None:
    """Refuse a declared rate that no ECG has. Raises UnreadableRecording."""
    if not math.isfinite(rate_hz) or not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
        raise UnreadableRecording(
            Reason.HEADER, f"{rate_hz:g} Hz", f"{LOWEST_HZ:g} to {HIGHEST_HZ:g} Hz", "Fetch the file again.", where
        )


def check_shape(n_leads: int, n_samples: int, rate_hz: float, where: str, part: slice | None = None) -> None:
    """Refuse a declared number of leads, samples per lead, or rate that no ECG has. Raises UnreadableRecording.

    part: the samples that will be read; then the whole may be of any length.
    """
    check_rate(rate_hz, where)
    taken = n_samples if part is None else len(range(n_samples)[part])
    if n_leads < 1 or n_samples < 1:
        raise UnreadableRecording(
            Reason.EMPTY, f"{n_leads} leads of {n_samples} samples", "at least one of each", "", where
        )
    if n_leads > MAX_LEADS or taken > MAX_SECONDS * rate_hz or n_leads * taken > MAX_SAMPLES:
        raise UnreadableRecording(
            Reason.LIMIT,
            f"{n_leads} leads of {taken} samples",
            f"at most {MAX_LEADS} leads, {MAX_SECONDS / 3600:g} h, {MAX_SAMPLES} samples",
            TAKE_WINDOWS,
            where,
        )
