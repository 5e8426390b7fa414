"""Public cohorts, one a file: each module has SPEC, a `CohortSpec` that says where its files, ids and labels are."""
