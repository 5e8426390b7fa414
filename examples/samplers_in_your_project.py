"""Batches of one cohort each, two recordings of every patient, for any project with its own data: no store needed."""

import numpy as np

from ecgcohorts import InDistributionBatchSampler

patients = np.repeat(np.arange(600), 3)  # whose recording each one is: any ids
cohorts = np.where(patients < 400, "clinic", "field")  # where it comes from: names or numbers
sampler = InDistributionBatchSampler.from_arrays(patients=patients, cohorts=cohorts, pairs=64, seed=0)

for rows in sampler:  # one epoch; or DataLoader(your_dataset, batch_sampler=sampler)
    first, second = rows.reshape(-1, 2).T  # two different recordings of each of 64 patients, all of one cohort
    print(cohorts[first[0]], first[:3], second[:3])

saved = sampler.state_dict()  # plain JSON: sampler.load_state_dict(saved) goes on here
