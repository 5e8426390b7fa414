"""Patient pairs for a project that keeps its ECGs in an HDF5 file of its own: the sampler is three lines."""

from pathlib import Path

import h5py
import numpy as np

from ecgcohorts import InDistributionBatchSampler

path = Path("mine.h5")
if not path.exists():  # stands for the file you have: one row per ECG, in any order
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as made:
        made["ecg"] = rng.integers(-500, 500, (600, 12, 500)).astype(np.int16)
        made["patient"] = rng.integers(0, 200, 600)
        made["hospital"] = np.array([b"clinic", b"field"])[made["patient"][:] % 2]

file = h5py.File(path)

# the three lines
patients, hospitals = file["patient"][:], file["hospital"].asstr()[:]
sampler = InDistributionBatchSampler.from_arrays(patients=patients, cohorts=hospitals, pairs=32, seed=0)
for rows in sampler:  # places of 64 ECGs: 32 patients of one hospital, the two of a patient side by side
    ascending, place = np.unique(rows, return_inverse=True)  # the order in which HDF5 wants to be read
    batch = file["ecg"][ascending][place]
    print(hospitals[rows[0]], batch.shape, patients[rows[:6]])
