"""The `capezoo` program. Help needs no torch; a command without it says what to install before anything else."""

import sys
from collections.abc import Sequence

from ecgcohorts.cli.program import Program, run

CAPEZOO = Program(
    "capezoo",
    "capezoo.cli.commands",
    "Encoders for ECGs: pretrain, publish, embed, evaluate.",
    ("capezoo pretrain --store store.zarr --out runs/z --seed 0", "capezoo embed weights/z store.zarr -o embeddings"),
    extra="zoo",
    # Any of them is enough to tell a base install; asked for at the start, since `locate` or a missing store would speak
    # before the first import of torch does.
    packages=("torch", "timm", "safetensors", "huggingface_hub", "lightning_fabric", "sklearn"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script."""
    run(CAPEZOO, sys.argv[1:] if arguments is None else arguments)
