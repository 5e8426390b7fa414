"""How well an encoder transfers between cohorts: one question a file.

ood           heads trained on one cohort, tested on the others
heads         the heads themselves, many trained at once
scaling       feature scalers, and the health of the features they see
separability  how much an embedding tells of the cohort it came from
map           the embedding in two dimensions
statistics    intervals and paired tests
results       what a result file holds
report        one HTML page from result files, training logs and a store
"""
