"""MERL's ResNet-18: signals and reports of MIMIC-IV-ECG, brought together as CLIP does with pictures and captions."""

from typing import Any

from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.importers._contract import PublicModel, Tensors
from ecgcohorts.leads import TWELVE_LEADS

# The order of the files that it was trained on.
_LEADS = tuple({"aVL": "aVF", "aVF": "aVL"}.get(lead, lead) for lead in TWELVE_LEADS)


def _describe(tensors: Tensors) -> tuple[EncoderSpec, InputSpec]:
    stem = tensors["conv1.weight"]
    config: dict[str, Any] = {
        "in_leads": stem.shape[1],
        "embedding_dim": 8 * stem.shape[0],
        "kernel": tensors["layer1.0.conv1.weight"].shape[2],
        "stem_kernel": stem.shape[2],
    }
    spec = InputSpec(leads=_LEADS, recipe="plain-500", length=5000, normalisation="window_min_max")
    return EncoderSpec(name="resnet18_1d", config=config), spec


MODEL = PublicModel(
    title="MERL ResNet-18",
    source="cheliu-computation/MERL-ICML2024, arXiv 2403.06659",
    where=(
        "From a Google Drive folder linked in the README of github.com/cheliu-computation/MERL-ICML2024: the file of the "
        "ResNet-18 encoder alone (about 15 MB), not the whole model with its text encoder."
    ),
    licence="MIT",
    # The head is built and never called.
    dropped=(r"linear\.(weight|bias)",),
    renamed=(
        (r"^conv1\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"^layer1\.", "stages.0."),
        (r"^layer2\.", "stages.1."),
        (r"^layer3\.", "stages.2."),
        (r"^layer4\.", "stages.3."),
        (r"\.conv1\.", ".main.0.conv."),
        (r"\.bn1\.", ".main.0.norm."),
        (r"\.conv2\.", ".main.1.conv."),
        (r"\.bn2\.", ".main.1.norm."),
        (r"\.shortcut\.0\.", ".skip.conv."),
        (r"\.shortcut\.1\.", ".skip.norm."),
    ),
    describe=_describe,
    known_failures=(
        "Leads are fed with aVF before aVL, as in MIMIC-IV-ECG; the public code swaps them for every other set. Here they are "
        "taken by name.",
        "The paper's embedding goes on through a projection and attention that are in no file of the encoder alone; these "
        "features are the mean over time before them.",
        "Every window is brought to 0 ... 1 over all its leads, so amplitudes in mV are lost, and an offset in one lead changes all.",
    ),
)
