"""MedalCare-XL as published: rows of numbers without names, three renderings of each, split and model in the path."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

PATIENTS = tuple(f"S{number}" for number in range(62, 75))


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Files below `root`; returned: folder -> recording id -> what must be found."""
    top = root / "WP2_largeDataset_Noise"
    for seed, place in enumerate(
        ("sinus/train/run_S62", "mi/LAD_0.3/test/run_S64", "mi/LAD_0.3/validation/run_S62", "mi/examples/run_S62")
    ):
        folder = top / place
        folder.mkdir(parents=True)
        for kind in ("raw", "noise", "filtered"):
            np.savetxt(folder / f"000001_{kind}.csv", np.random.default_rng(seed).normal(size=(12, 5000)), "%.4f", ",")
    one = {"sinus": 1, "mi": 0, "avblock": 0, "split": 1}
    return {
        root: {
            "sinus/train/run_S62/000001": {"cohort": "medalcare_xl", "patient_id": "S62", "sex": None, "labels": one},
            "mi/LAD_0.3/test/run_S64/000001": {"patient_id": "S64", "labels": {"sinus": 0, "mi": 1, "split": 3}},
            "mi/LAD_0.3/validation/run_S62/000001": {"patient_id": "S62", "age_years": None, "labels": {"split": 2}},
        }
    }
