"""Count what is in a store."""

from ecgcohorts.cli.console import Answer
from ecgcohorts.cli.parameters import STORE, argument
from ecgcohorts.cli.program import command

ORDER = 99


@command("count", "ecgcohorts count store.zarr", "ecgcohorts count store.zarr --json")
@argument("store", STORE, "store")
def count(*, store: str) -> Answer:
    """Count the recordings of a store."""
    from ecgcohorts.store.reader import open_store

    recordings = len(open_store(store).index)
    return Answer({"recordings": recordings}, f"{recordings} recordings")
