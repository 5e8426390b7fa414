"""What two processes of torchrun do: embed a store in memory together. Arguments: the output folder."""

import importlib.util
import os
import sys
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
    info = folder.write_embeddings(made.Mean(), made.store_of(61), sys.argv[1], progress=lambda *n: told.append(n))
    Path(f"{sys.argv[1]}-{os.environ['RANK']}.txt").write_text(f"{told[-1]} {info.records}")
    assert parts.RECORDS == 8
    distributed.leave()
