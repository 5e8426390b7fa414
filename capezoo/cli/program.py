"""The `capezoo` program. Help needs no torch; what a command does, does, and says so before anything else."""

import sys
from collections.abc import Sequence

from capezoo.errors import require
from ecgcohorts.cli.program import Program, run

_NEEDED = (
    "torch",
    "timm",
    "safetensors",
    "huggingface_hub",
    "lightning_fabric",
    "sklearn",
)  # the extra `zoo`, as every installation of it has it

CAPEZOO = Program(
    "capezoo",
    "capezoo.cli.commands",
    "Encoders for ECGs: pretrain, publish, embed, evaluate.",
    ("capezoo pretrain --store store.zarr --out runs/z --seed 0", "capezoo embed weights/z store.zarr -o embeddings"),
    lambda: require(*_NEEDED),
    extra="zoo",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script."""
    run(CAPEZOO, sys.argv[1:] if arguments is None else arguments)
