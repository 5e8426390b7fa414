"""A tiny encoder as published weights, in a moment, and a Hub on loopback."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from capezoo import encoders
from capezoo.specs import EncoderSpec, InputSpec, WeightCard
from capezoo.zoo import write_weights
from capezoo.zoo.files import CARD, SUMS
from capezoo.zoo.publish import _resolved
from ecgcohorts.io.durable import sha256_of

TINY = EncoderSpec(name="cape_resnet", config={"widths": [4, 4], "embedding_dim": 6, "kernel": 8})


def tiny_card(**changes) -> WeightCard:
    values = {
        "name": "tiny",
        "version": "1",
        "encoder": _resolved(TINY),
        "input": InputSpec(length=400),
        "parameters": 1,
        "embedding_dim": 6,
        "weights_licence": "Apache-2.0",
        "data_licences": {"north": "CC0-1.0"},
    }
    return WeightCard(**(values | changes))


@pytest.fixture
def tiny():
    """The encoder, with running statistics that a lost buffer would change."""
    import torch

    model = encoders.build(TINY, seed=3)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if buffer.dtype == torch.float32:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if "var" in name else 0.0))
    return model


@pytest.fixture
def folder(tiny, tmp_path: Path) -> Path:
    digests = tmp_path / "digests.bin"
    digests.write_bytes(np.arange(32, dtype=np.uint8).tobytes())
    return write_weights(tmp_path / "weights", tiny, tiny_card(), digests)


def resign_folder(folder: Path, *names: str) -> None:
    """Make card and SHA256SUMS agree with changed files, as someone with bad intent would."""
    card = json.loads((folder / CARD).read_text())
    for name in names:
        card["sha256"][name] = sha256_of(folder / name)
    (folder / CARD).write_text(json.dumps(card))
    sums = [f"{sha256_of(path)}  {path.name}" for path in sorted(folder.iterdir()) if path.name != SUMS]
    (folder / SUMS).write_text("\n".join(sums) + "\n")


@pytest.fixture
def resign():
    return resign_folder


def _standin():
    """The module beside this file: pytest's importlib mode has no import by name for helper modules."""
    spec = spec_from_file_location("standin_hub", Path(__file__).with_name("standin_hub.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, an empty cache, and somebody logged in."""
    module = _standin()
    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", module.TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with module.Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
