"""Export an encoder as an ONNX file with its input contract, once onnxruntime gives the outputs of torch."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capezoo.specs.input import InputSpec
from ecgcohorts.errors import SpecError, install_line
from ecgcohorts.io.durable import machine_errors, write_file

if TYPE_CHECKING:
    from torch import nn

# Largest difference of outputs over the largest expected value; single precision gives about 1e-6.
TOLERANCE = 1e-5
METADATA_KEY = "capezoo.input"  # of the InputSpec as JSON in the file's metadata
SIGNAL, EMBEDDING, LOGITS = "signal_mv", "embedding", "logits"  # names of input and output
# Other sizes than the one traced with, so that a batch fixed by mistake shows.
CHECK_BATCHES = (1, 3)
TRACED_BATCH = 2
CHECK_SEED = 0  # of the noise both are fed; any number would do


def export_onnx(model: "nn.Module", path: str | Path) -> Path:
    """Write a model of `create_model` or `load` as ONNX and return the path: length fixed, any batch.

    Input `signal_mv` float32 (batch, lead, time); output `embedding` (batch, num_features), or `logits` if there is a
    classifier. The metadata entry `capezoo.input` is `model.spec` as JSON. Nothing is written unless onnxruntime's
    output for fixed noise is within 1e-5 of torch's, relative to the largest value.
    Raises SpecError if it is not, if a library is missing, or if the model has no `spec`.
    """
    spec = getattr(model, "spec", None)
    if not isinstance(spec, InputSpec):
        raise SpecError(
            f"found a {type(model).__name__} without spec, expected a model of capezoo.create_model or load."
        )
    was_training = model.training
    model.eval()
    try:
        data = _exported(model, spec)
        difference = max(_difference(model, data, batch, spec) for batch in CHECK_BATCHES)
    finally:
        model.train(was_training)
    if not difference <= TOLERANCE:
        raise SpecError(
            f"{path}: outputs of onnxruntime differ from torch's by {difference:.1e} of the largest value, expected at "
            f"most {TOLERANCE:.0e}. Nothing is written. Use another version of onnxruntime."
        )
    with machine_errors(Path(path)):
        write_file(Path(path), data)
    return Path(path)


def _exported(model: "nn.Module", spec: InputSpec) -> bytes:
    import torch

    onnx = _library("onnx")
    _library("onnxscript")  # what torch's exporter is written in
    x = torch.zeros(TRACED_BATCH, len(spec.leads), spec.length, device=next(model.parameters()).device)
    # Without gradients, blocks that a backward pass would recompute are traced as plain ones.
    with torch.no_grad():
        try:
            program = torch.onnx.export(
                model,
                (x,),
                input_names=[SIGNAL],
                output_names=[LOGITS if model.num_classes else EMBEDDING],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            # Its message is a page about the exporter's own insides.
            raise SpecError(
                f"found {type(model).__module__}, which torch's exporter cannot write as ONNX ({type(error).__name__}); "
                "expected a network of convolutions or attention. Use it in PyTorch."
            ) from error
    assert program is not None
    proto = program.model_proto
    _forget_where(proto.graph)
    onnx.helper.set_model_props(proto, {METADATA_KEY: spec.model_dump_json()})
    onnx.checker.check_model(proto)
    written = BytesIO()
    onnx.save_model(proto, written)
    return written.getvalue()


def _forget_where(graph: Any) -> None:
    """Drop the exporter's notes, which hold paths of this machine in every node."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


def _difference(model: "nn.Module", data: bytes, batch: int, spec: InputSpec) -> float:
    """Return the largest difference of onnxruntime's and torch's output for noise of 1 mV, over the largest value."""
    import torch

    shape = (batch, len(spec.leads), spec.length)
    signal: NDArray[np.float32] = np.random.default_rng(CHECK_SEED).standard_normal(shape, dtype=np.float32)
    session = _library("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {SIGNAL: signal})
    device = next(model.parameters()).device
    with torch.no_grad():
        wanted = model(torch.from_numpy(signal).to(device)).cpu().numpy()
    return float(np.abs(found - wanted).max() / (np.abs(wanted).max() or 1.0))


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise SpecError(f"{name} is not installed. Run: {install_line('onnx')}") from None
