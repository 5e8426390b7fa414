"""Records that are read, by which the test of hostile files shows that it sees and measures what it says."""

from pathlib import Path


def case_that_is_read(folder: Path) -> Path:
    return case_of_zeros(folder, 9)


def case_of_zeros(folder: Path, n_samples: int = 4_000_000) -> Path:
    """Eight signals, of which reading keeps 128 MB."""
    path = folder / "zeros.hea"
    line = "zeros.dat 16 1000(0)/mV 16 0 0 0 0 V1"
    path.write_text("".join(f"{text}\n" for text in [f"zeros 8 1000 {n_samples}", *[line] * 8]))
    with path.with_suffix(".dat").open("wb") as file:
        file.truncate(8 * 2 * n_samples)
    return path
