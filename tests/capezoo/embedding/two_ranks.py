"""What two processes of torchrun do: embed a store in memory together. Arguments: the output folder."""

import importlib.util
import os
import sys
import time
from pathlib import Path

import torch

from capezoo import distributed
from capezoo.embedding import folder, parts


def helpers():
    spec = importlib.util.spec_from_file_location("resumed", Path(__file__).with_name("test_resumed_embedding.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["resumed"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = helpers()
    made.small_parts()
    told = []
    finished = folder._finished

    def late(*arguments):
        time.sleep(0.5)  # on rank 0 alone, which puts the folder in its place
        return finished(*arguments)

    folder._finished = late
    info = folder.write_embeddings(made.Mean(), made.store_of(61), sys.argv[1], progress=lambda *n: told.append(n))
    assert folder.open_embeddings(sys.argv[1]).info == info
    Path(f"{sys.argv[1]}-{os.environ['RANK']}.txt").write_text(f"{told[-1]} {info.records}")
    assert parts.RECORDS == 8
    distributed.leave()
