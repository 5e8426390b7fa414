"""What public encoders are fed, on real recordings, against their published chains written out with SciPy alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import signal
from torch import nn

import capezoo
import ecgcohorts as ec
from capezoo.specs import InputSpec
from capezoo.zoo.importers import public_model
from ecgcohorts.recording import Recording

pytestmark = pytest.mark.shared

# In deviations. Strips are whole microvolts, and half of one is 0.003 of a deviation of 150 uV; found: 0.005 at most, in 68.
TOLERANCE = 0.01


class Fed(nn.Module):
    """Gives back what it is fed."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec, self.num_features = spec, len(spec.leads) * spec.length
        self.unused = nn.Parameter(torch.zeros(1))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool) -> torch.Tensor:
        return x.flatten(1)


def recordings(folder: Path, count: int) -> list[Recording]:
    """Return recordings of 10 s at 500 Hz, spread over a folder of WFDB records."""
    found = sorted(folder.rglob("*.hea"))
    read = [ec.read(path)[0] for path in found[:: max(1, len(found) // count)][:count]]
    return [one for one in read if one.signal_mv.shape == (12, 5000) and one.rate_hz == 500]


def ecgfounder(x: NDArray) -> NDArray:
    x = signal.filtfilt(*signal.iirnotch(50, 30, 500), x, axis=1)
    x = signal.filtfilt(*signal.butter(4, [0.67, 40], "bandpass", fs=500), x, axis=1)
    x = x - np.stack([signal.medfilt(lead, 201) for lead in x])
    return (x - x.mean()) / x.std()


def merl(x: NDArray) -> NDArray:
    return (x - x.min()) / (x.max() - x.min())


ORDER = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
CHAINS = {
    "ecgfounder": (ecgfounder, ORDER),
    "merl_resnet18": (merl, [*ORDER[:4], "aVF", "aVL", *ORDER[6:]]),
}


@pytest.mark.parametrize("cohort", ["ptb_xl/records500", "mimic_iv_ecg"])
@pytest.mark.parametrize("name", CHAINS)
def test_windows_of_real_recordings_are_those_of_the_published_chain(name: str, cohort: str, shared: Path) -> None:
    chain, order = CHAINS[name]
    spec = spec_of(name)
    assert list(spec.leads) == order
    compared = 0
    for one in recordings(shared / cohort, 5):
        if np.isnan(one.signal_mv).any():
            continue
        names = [lead.upper() for lead in one.leads]
        expected = chain(one.signal_mv[[names.index(lead.upper()) for lead in order]])
        given = {"rate_hz": 500, "leads": one.leads, "unit": "mV"}
        found = capezoo.embed(Fed(spec), one.signal_mv[None], **given).reshape(expected.shape)
        assert np.abs(found - expected).max() < TOLERANCE * expected.std()
        compared += 1
    assert compared >= 3


def spec_of(name: str) -> InputSpec:
    """The input contract that an importer gives its weights, from shapes alone."""
    if name == "merl_resnet18":
        tensors = {"conv1.weight": torch.zeros(64, 12, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3)}
    else:
        at = "stage_list.0.block_list.0."
        tensors = {"first_conv.conv.weight": torch.zeros(64, 12, 16), f"{at}conv3.conv.weight": torch.zeros(64, 64, 1)}
        tensors |= {f"{at}conv2.conv.weight": torch.zeros(64, 16, 16), f"{at}se_fc1.weight": torch.zeros(32, 64)}
    return public_model(name).describe(tensors)[1]
