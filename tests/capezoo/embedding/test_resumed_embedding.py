"""Embeddings that take hours: written as they come, shared by processes, resumed after a kill, on a GPU if there is one."""

import logging
import os
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import capezoo
from capezoo.embedding import folder, from_store, parts
from capezoo.embedding.folder import embed_store, open_embeddings, write_embeddings
from capezoo.specs import InputSpec
from capezoo.zoo import forward
from ecgcohorts.errors import LockHeld, SpecError, StoreError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import Recipe

BLOCK, PART, CHUNK = 4, 8, 16  # records; in place of 256, 1,024 and 4,096
LENGTH = 300


class Mean(nn.Module):
    """Stands in for an encoder: a wide projection of each lead's mean."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.spec, self.num_features = InputSpec(length=LENGTH), width
        weight = np.random.default_rng(0).normal(size=(width, 8)).astype(np.float32)
        self.weight, self.seen = nn.Parameter(torch.from_numpy(weight)), 0

    def forward_features(self, x):
        self.seen += len(x)
        return x.mean(-1)

    def forward_head(self, x, pre_logits):
        return x @ self.weight.T


@dataclass
class Strips:
    """A store of strips that are made when they are read."""

    index: CohortIndex
    broken: frozenset = frozenset()
    recipe: Recipe = CAPE_V1
    path: Path = Path("strips.zarr")
    fingerprint: str = "e" * 64

    def read(self, rows):
        if self.broken & set(rows.tolist()):
            raise KeyboardInterrupt
        return np.stack([np.random.default_rng(int(row)).integers(-900, 900, (8, 400)) for row in rows]).astype(
            np.int16
        )

    def refuse_removed(self) -> None:
        """Nobody is."""


def store_of(records, **changes):
    columns = {name: np.zeros(records, dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: np.zeros((records, 16), np.uint8) for name in BYTE_COLUMNS}
    columns |= {"row": np.arange(records), "patient": np.arange(records)}
    columns["valid_stop"] = np.full(records, 400, np.int32)
    return Strips(CohortIndex(columns, ("north",)), **changes)


def small_parts(setattr_=setattr):
    for module, name, value in (
        (from_store, "BATCH", BLOCK),
        (forward, "BATCH", BLOCK),
        (parts, "RECORDS", PART),
        (folder, "RECORDS", PART),
        (folder, "_CHUNK_PARTS", CHUNK // PART),
        (folder, "_CHUNK_RECORDS", CHUNK),
    ):
        setattr_(module, name, value)


@pytest.fixture
def small(monkeypatch):
    small_parts(monkeypatch.setattr)


def files_of(path):
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


@pytest.mark.parametrize("records", [0, 16, 61])
def test_written_in_parts_they_are_those_of_one_pass(small, tmp_path, records):
    store, told = store_of(records), []
    made = embed_store(Mean(), store, tmp_path / "e", progress=lambda *n: told.append(n))
    np.testing.assert_array_equal(made.embedding, capezoo.embed(Mean(), store))
    assert told == [(min(done, records), records) for done in range(BLOCK, records + BLOCK, BLOCK)]
    assert made.info == open_embeddings(tmp_path / "e").info
    assert made.info.device == "cpu"
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


@pytest.mark.parametrize("stopped_at", [0, 30, 60])
def test_stopped_anywhere_it_goes_on_and_ends_with_the_same_bytes(small, tmp_path, stopped_at):
    write_embeddings(Mean(), store_of(61), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write_embeddings(Mean(), store_of(61, broken=frozenset([stopped_at])), tmp_path / "e")
    assert not (tmp_path / "e").exists()
    again, told = Mean(), []
    write_embeddings(again, store_of(61), tmp_path / "e", progress=lambda *n: told.append(n))
    assert files_of(tmp_path / "e") == files_of(tmp_path / "whole")
    # Of the parts before, all but those on their way were kept: up to two blocks are read ahead, and one is computed.
    kept = 61 - again.seen
    assert stopped_at - PART - 3 * BLOCK < kept <= stopped_at
    assert told[0] == (min(kept + BLOCK, 61), 61)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "whole"]


def test_a_damaged_part_is_made_again(small, tmp_path):
    write_embeddings(Mean(), store_of(61), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write_embeddings(Mean(), store_of(61, broken=frozenset([60])), tmp_path / "e")
    first, second, third = sorted((tmp_path / ".e.part" / "parts").iterdir())[:3]
    data = bytearray(first.read_bytes())
    data[17] ^= 4
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-9])
    third.unlink()
    again = Mean()
    write_embeddings(again, store_of(61), tmp_path / "e")
    assert files_of(tmp_path / "e") == files_of(tmp_path / "whole")
    assert 3 * PART < again.seen < 61


@pytest.mark.parametrize("changed", ["weights", "store"])
def test_parts_of_other_embeddings_are_dropped_and_said_so(small, tmp_path, caplog, changed):
    with pytest.raises(KeyboardInterrupt):
        write_embeddings(Mean(), store_of(61, broken=frozenset([60])), tmp_path / "e")
    model, store = Mean(), store_of(61)
    if changed == "weights":
        nn.init.ones_(model.weight)
    if changed == "store":
        store = replace(store, fingerprint="d" * 64)
    with caplog.at_level(logging.WARNING):
        made = embed_store(model, store, tmp_path / "e")
    assert "dropped what was left of other embeddings" in caplog.text
    assert model.seen == 61
    np.testing.assert_array_equal(made.embedding, capezoo.embed(model, store))


def test_only_one_process_writes_them(small, tmp_path):
    inside = []

    class Nosy(Mean):
        def forward_features(self, x):
            if not inside:
                inside.append(1)
                with pytest.raises(LockHeld, match="another process is writing to this folder"):
                    write_embeddings(Mean(), store_of(9), tmp_path / "e")
            return super().forward_features(x)

    write_embeddings(Nosy(), store_of(9), tmp_path / "e")
    assert inside


def test_a_recording_that_is_too_short_is_found_before_the_first_is_embedded(small, tmp_path):
    store = store_of(61)
    store.index.columns["valid_stop"][60] = 200
    model = Mean()
    with pytest.raises(StoreError, match="found 200 valid samples in entry 60"):
        write_embeddings(model, store, tmp_path / "e")
    assert model.seen == 0


def test_memory_holds_one_chunk_of_them_and_not_all(small, tmp_path):
    """300 records of 10,000 features are 12 MB; a chunk is 0.64 MB."""
    model, store = Mean(10_000), store_of(300)
    tracemalloc.start()
    write_embeddings(model, store, tmp_path / "e")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6
    tracemalloc.start()
    found = capezoo.embed(model, store)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < found.nbytes + 3e6  # once, not twice


def test_two_processes_write_what_one_writes(small, tmp_path):
    write_embeddings(Mean(), store_of(61), tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("two_ranks.py")
    done = subprocess.run([*command, str(script), str(tmp_path / "two")], env=os.environ, capture_output=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    # Eight parts, four each: each is told of its own share, and both know all.
    assert [(tmp_path / f"two-{rank}.txt").read_text() for rank in (0, 1)] == ["(32, 32) 61", "(29, 29) 61"]


def test_on_a_gpu_windows_are_pinned_and_results_come_one_block_late(small, tmp_path, monkeypatch, paper_gpu):
    paper_gpu.install(monkeypatch)
    model = Mean()
    with paper_gpu:
        made = embed_store(model, store_of(21), tmp_path / "e", device="auto")
    np.testing.assert_array_equal(made.embedding, capezoo.embed(Mean(), store_of(21)))
    assert made.info.device == "cuda"
    assert paper_gpu.asked["pinned"] == paper_gpu.asked["events"] == paper_gpu.asked["waits"] == 6  # blocks
    assert paper_gpu.asked["copies that do not wait"] == 12  # there and back


def test_the_next_block_is_begun_before_the_one_before_is_waited_for(small, monkeypatch, paper_gpu):
    paper_gpu.install(monkeypatch)
    order = []

    class Telling(Mean):
        def forward_features(self, x):
            order.append("begun")
            return super().forward_features(x)

    monkeypatch.setattr(paper_gpu, "_note", lambda what: lambda *args: order.append(what))
    with paper_gpu:
        capezoo.embed(Telling(), store_of(12), device="cuda")
    assert [what for what in order if what != "events"] == ["begun", "begun", "waits", "begun", "waits", "waits"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "found device 'gpu', expected auto, cpu, cuda or cuda:N"),
        ("cuda:x", "expected auto, cpu, cuda or cuda:N"),
        ("auto:1", "expected auto, cpu, cuda or cuda:N"),
        ("mps", "expected auto, cpu, cuda or cuda:N"),
        ("cuda:2", "for GPU 2, expected one of 2. Name another, or start fewer processes"),
    ],
)
def test_a_device_that_is_none_is_refused(store, monkeypatch, paper_gpu, name, message):
    paper_gpu.gpus = 2
    paper_gpu.install(monkeypatch)
    with pytest.raises(SpecError, match=message):
        capezoo.embed(Mean(), store_of(4), device=name)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    np.testing.assert_array_equal(capezoo.embed(Mean(), store_of(4), device="auto"), capezoo.embed(Mean(), store_of(4)))
    with pytest.raises(
        SpecError, match=r"found device 'cuda' and no GPU that torch can use. Take cpu, or install torch"
    ):
        capezoo.embed(Mean(), store_of(4), device="cuda")


def test_each_process_takes_a_gpu_of_its_own(monkeypatch, paper_gpu):
    from capezoo.devices import _device_named

    paper_gpu.gpus = 4
    paper_gpu.install(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [str(_device_named(name)) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:3",
        "cuda:3",
        "cuda:1",
        "cpu",
    ]
