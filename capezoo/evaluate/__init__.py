"""How well an encoder transfers between cohorts: one question a file.

questions   what can be asked, as plug-ins
measure     what questions share: heads, scalers, statistics, tasks, the split of records
labelled    from tables of features and of labels to a tested answer, without a store
study       questions asked of weights and a store
results     results.json
page        one HTML page from studies, training runs and a store
"""
