"""ECGFounder: Net1D trained on ten million ECGs and their labels, with 12 leads or one."""

import re
from typing import Any

from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.importers._contract import PublicModel, Tensors
from ecgcohorts.leads import TWELVE_LEADS

# Of the files with one lead; those of all leads have the usual order.
_ONE_LEAD = ("I",)


def _describe(tensors: Tensors) -> tuple[EncoderSpec, InputSpec]:
    width, leads, kernel = tensors["first_conv.conv.weight"].shape
    blocks = [re.match(r"stage_list\.(\d+)\.block_list\.(\d+)\.conv3\.conv\.weight", name) for name in tensors]
    stages = [int(block[1]) for block in blocks if block]
    widths = [tensors[f"stage_list.{i}.block_list.0.conv3.conv.weight"].shape[0] for i in range(len(set(stages)))]
    first = "stage_list.0.block_list.0."
    config: dict[str, Any] = {
        "in_leads": leads,
        "stem_width": width,
        "widths": widths,
        "blocks": [stages.count(i) for i in range(len(widths))],
        "kernel": kernel,
        "group_width": tensors[first + "conv2.conv.weight"].shape[1],
        "squeeze": widths[0] // tensors[first + "se_fc1.weight"].shape[0],
    }
    names = {1: _ONE_LEAD, 12: TWELVE_LEADS}
    spec = InputSpec(leads=names[leads], recipe="ecgfounder-1", normalisation="window_z")
    return EncoderSpec(name="net1d", config=config), spec


MODEL = PublicModel(
    title="ECGFounder",
    source="PKUDigitalHealth/ECGFounder, arXiv 2410.04133",
    where=(
        "On the Hugging Face Hub, repository PKUDigitalHealth/ECGFounder, tab Files: 12_lead_ECGFounder.pth or "
        "1_lead_ECGFounder.pth, 124 MB each."
    ),
    licence="MIT",
    inside=("state_dict",),
    # The head of 150 diagnoses, and batch norms that the released network builds and never calls.
    dropped=(r"dense\.(weight|bias)", r"first_bn\..*", r"stage_list\.\d+\.block_list\.\d+\.bn[123]\..*"),
    renamed=(
        (r"^first_conv\.conv\.", "stem."),
        (r"^stage_list\.(\d+)\.block_list\.(\d+)\.", r"stages.\1.\2."),
        (r"\.(conv[123])\.conv\.", r".\1."),
        (r"\.se_fc1\.", ".weigh.0."),
        (r"\.se_fc2\.", ".weigh.2."),
    ),
    describe=_describe,
    known_failures=(
        "The released data classes for fine-tuning apply none of the published filters. Here the published chain is "
        "applied: notch, band-pass, minus running median, one z-score over all leads.",
        "The released class that resamples goes on with the signal as it was before. Here every source is resampled to 500 Hz.",
        "The released classes take leads by their place in MIMIC-IV-ECG, where aVF comes before aVL. Here they are taken by "
        "name.",
        "Made for 10 s; the public benchmark feeds 2.5 s, which another encoder of the same weights would need.",
        "The weights of one lead take lead I.",
    ),
)
