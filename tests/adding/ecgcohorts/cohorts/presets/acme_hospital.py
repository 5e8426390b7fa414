"""Acme carts of one hospital: files `*.acme` in any folder, one recording each. Made up for tests/test_adding_things.py."""

from ecgcohorts.cohorts.schema import Files, Layout, Where
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="acme_hospital",
    title="Acme carts of one hospital",
    licence="CC0-1.0",
    citation="your own data: no publication",
    mains_hz=50,
    layouts=(
        Layout(
            reader="acme",
            files=Files(include=("**/*.acme",)),
            patient=(Where(reader=True),),
            age=(Where(path=r"_(\d+)\.acme$"),),
        ),
    ),
)
