"""Makes the golden store of a format version: `python tests/golden/make_store.py tests/golden/store-<version>`.

Run once per format version; what it made is committed and must open for ever (tests/ecgcohorts/store/test_golden.py).
Simulated recordings only. The store holds one of each: a cohort of two ingest runs, strips shorter than the recipe's,
a duplicate, a refused recording, an unknown age and sex, patients with one recording and with two, labels.
store-1 is of `cape-v1`, which is written in format 1 to this day; store-2 is of a recipe from a file.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.simulate import simulate

KEY = bytes(range(32)).hex()  # public on purpose: nobody stands behind these pseudonyms
PATIENTS = {"north": 3, "river": 1, "coast": 1}
SEED = 5
RECIPES: dict[str, str | Path] = {"store-1": "cape-v1", "store-2": Path(__file__).with_name("golden-2.yaml")}
FIRST_RUN, SECOND_RUN = ("10020", "10021", "10022"), ("10030",)  # recordings of north; a strip takes about 40 kB
WITHOUT_PERSON, TRUNCATED, COPIED, COPY = "10021", "10022", "10020", "10099"


def make(out: Path, recipe: str | Path) -> None:
    """Write the store. Raises FileExistsError if `out` is there: a golden store is never replaced."""
    if out.exists():
        raise FileExistsError(f"{out}: a golden store is never replaced; name the folder of a new format version.")
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw"
        key = Path(name) / "key"
        key.write_text(KEY, "ascii")
        key.chmod(0o600)
        simulate(raw, patients_per_cohort=PATIENTS, seed=SEED)
        aside = keep_some(raw / "north" / "records" / "00000", Path(name) / "aside")
        options = IngestOptions(recipe=recipe, key_file=key, shard_records=4)
        ingest(raw / "north", out, str(raw / "north" / "cohort.yaml"), options)
        for path in aside:
            shutil.copy(path, raw / "north" / "records" / "00000")
        ingest(raw / "north", out, str(raw / "north" / "cohort.yaml"), options)
        ingest(raw / "coast", out, str(raw / "coast" / "cohort.yaml"), options)


def keep_some(records: Path, aside: Path) -> list[Path]:
    """Leave the recordings of the first run in a folder of WFDB records, some of them spoiled; return those of the second."""
    aside.mkdir()
    for path in sorted(records.iterdir()):
        if path.stem in SECOND_RUN:
            path.rename(aside / path.name)
        elif path.stem not in FIRST_RUN:
            path.unlink()
    samples = records / f"{TRUNCATED}.dat"
    samples.write_bytes(samples.read_bytes()[:-1000])
    header = records / f"{WITHOUT_PERSON}.hea"
    lines = header.read_text("ascii").splitlines(keepends=True)
    header.write_text("".join(line for line in lines if not line.startswith(("# Age", "# Sex"))), "ascii")
    shutil.copy(records / f"{COPIED}.dat", records / f"{COPY}.dat")
    text = (records / f"{COPIED}.hea").read_text("ascii")
    (records / f"{COPY}.hea").write_text(text.replace(COPIED, COPY), "ascii")
    return sorted(aside.iterdir())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    make(out, RECIPES[out.name])


if __name__ == "__main__":
    main()
