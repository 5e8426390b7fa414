"""A store of two simulated hospitals for the other examples, made in the current folder unless it is there."""

from pathlib import Path

HOSPITAL_NAMES = ("north", "river")
PATIENTS = 12  # of each hospital


def small_store() -> Path:
    """The folder of the store. With recordings of your own: `ecgcohorts ingest FOLDER store.zarr --cohort ...`."""
    store = Path("store.zarr")
    if not store.exists():
        from ecgcohorts.ingest import IngestOptions, ingest  # here, because they take seconds
        from ecgcohorts.simulate import HOSPITALS, simulate

        key = Path("example.key")  # a known key, so that everybody's store is the same
        key.write_text("de" * 32 + "\n")
        hospitals = [HOSPITALS[name] for name in HOSPITAL_NAMES]
        simulate(Path("raw"), patients_per_cohort=PATIENTS, seed=0, hospitals=hospitals)
        for name in HOSPITAL_NAMES:
            ingest(Path("raw") / name, store, f"raw/{name}/cohort.yaml", IngestOptions(key_file=key))
    return store
