"""ONNX files: what onnxruntime computes from them, what they say about themselves, and when none is written."""

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import capezoo
from capezoo.cli import program as cli
from capezoo.interop import onnx as onnx_export
from capezoo.specs import EncoderSpec, InputSpec, WeightCard
from capezoo.zoo import write_weights
from capezoo.zoo.publish import _resolved
from ecgcohorts.errors import SpecError, install_line

SMALL = {
    "cape_resnet": {"widths": [4, 6], "embedding_dim": 8},
    "vit1d": {"embedding_dim": 32, "head_dim": 16, "depth": 2},
}


def made(name: str, num_classes: int = 0, seed: int = 0) -> torch.nn.Module:
    model = capezoo.create_model(name, config=SMALL[name], num_classes=num_classes, seed=seed)
    generator = torch.Generator().manual_seed(0)
    for key, value in model.named_buffers():  # statistics other than 0 and 1, so that a wrong norm shows
        if "running" in key:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model


@pytest.fixture(scope="module", params=["cape_resnet", "vit1d"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A model and its file, with a classifier on the transformer."""
    model = made(request.param, num_classes=3 if request.param == "vit1d" else 0)
    model.set_grad_checkpointing(True)  # must not end up in the file
    return model, capezoo.export_onnx(model, tmp_path_factory.mktemp("onnx") / "new" / "model.onnx")


def test_onnxruntime_agrees_with_torch_on_any_batch(exported) -> None:
    model, path = exported
    assert model.training  # as it was before
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model.eval()
    for batch in (1, 2, 5):
        x = np.random.default_rng(batch).standard_normal((batch, 8, 2800), dtype=np.float32)
        (found,) = session.run(None, {"signal_mv": x})
        with torch.no_grad():
            wanted = model(torch.from_numpy(x)).numpy()
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    with pytest.raises(Exception, match=r"Got: 2000 Expected: 2800"):
        session.run(None, {"signal_mv": np.zeros((1, 8, 2000), np.float32)})
    model.train()


def test_the_file_says_what_to_feed_it_and_nothing_of_this_machine(exported) -> None:
    model, path = exported
    proto = onnx.load(path)
    assert {entry.key: InputSpec.model_validate_json(entry.value) for entry in proto.metadata_props} == {
        "capezoo.input": model.spec
    }
    assert [value.name for value in proto.graph.input] == ["signal_mv"]
    assert [value.name for value in proto.graph.output] == ["logits" if model.num_classes else "embedding"]
    data = path.read_bytes()
    assert b".py" not in data
    assert str(Path(capezoo.__file__).parent).encode() not in data
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_a_file_that_computes_something_else_is_never_written(exported, tmp_path, monkeypatch) -> None:
    model, path = exported
    other = made(model_name(model), num_classes=model.num_classes, seed=1)
    data = path.read_bytes()
    monkeypatch.setattr(onnx_export, "_exported", lambda model, spec: data)
    with pytest.raises(SpecError, match=r"differ from torch's by \d.*e[-+]\d+ .* expected at most 1e-05. Nothing is"):
        capezoo.export_onnx(other, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def model_name(model: torch.nn.Module) -> str:
    return type(model).__module__.rpartition(".")[2]


def test_a_network_without_an_input_contract_is_refused(tmp_path) -> None:
    with pytest.raises(SpecError, match="found a Linear without spec, expected a model of capezoo"):
        capezoo.export_onnx(torch.nn.Linear(2, 2), tmp_path / "model.onnx")


@pytest.mark.parametrize("library", ["onnx", "onnxscript"])
def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch, library) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SpecError, match=f"^{library} is not installed. Run: {re.escape(install_line('onnx'))}"):
        capezoo.export_onnx(made("cape_resnet"), tmp_path / "model.onnx")


def test_the_command_exports_published_weights(tmp_path, capsys, monkeypatch) -> None:
    spec = EncoderSpec(config=SMALL["cape_resnet"])
    card = WeightCard(
        name="tiny", version="1", encoder=_resolved(spec), input=InputSpec(length=400), parameters=1, embedding_dim=8
    )
    model = made("cape_resnet")
    folder = write_weights(tmp_path / "weights", model, card)
    given = []
    monkeypatch.setattr(onnx_export, "export_onnx", lambda model, path: given.append(model) or path)
    cli.main(["onnx", str(folder), "-o", str(tmp_path / "tiny.onnx")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "tiny.onnx")
    assert given[0].spec == InputSpec(length=400)
    assert torch.equal(given[0].stem.weight, model.stem.weight)


def test_what_the_exporter_cannot_write_is_refused_in_one_line(tmp_path):
    """S4 computes with Fourier transforms of complex numbers, which torch's exporter has no form for."""
    model = capezoo.create_model("s4", config={"width": 8, "depth": 1})
    with pytest.raises(SpecError, match=r"s4, which torch's exporter cannot write as ONNX") as refused:
        onnx_export.export_onnx(model, tmp_path / "s4.onnx")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "s4.onnx").exists()
