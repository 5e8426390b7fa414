"""The tiny run by the processes of torchrun, each step slowed down: `slow_ranks.py OUT STALL_S [RANK THAT READS FOR EVER]`."""

import importlib.util
import sys
import time
from pathlib import Path

import torch

from capezoo.specs import ComputeSpec
from capezoo.training import device
from capezoo.training.loop import pretrain

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("tiny_runs", Path(__file__).with_name("conftest.py"))
    tiny = importlib.util.module_from_spec(spec)
    sys.modules["tiny_runs"] = tiny
    spec.loader.exec_module(tiny)
    torch.set_num_threads(1)
    fetch, stuck = device.Feed.fetch, int(sys.argv[3]) if len(sys.argv) > 3 else -1

    def read_for_ever(self, step):
        if step == 4 and torch.distributed.get_rank() == stuck:
            time.sleep(3600)
        fetch(self, step)

    device.Feed.fetch = read_for_ever
    config = tiny.make_config(compute=ComputeSpec(batch_norm="local"))
    pretrain(
        tiny.make_store(),
        config,
        Path(sys.argv[1]),
        progress=lambda report: time.sleep(0.3),
        stall_s=float(sys.argv[2]),
    )
    torch.distributed.destroy_process_group()
