"""What a disturbance of the body or of electrodes does to the leads of a window."""

import numpy as np
import torch
from torch import Tensor

from capezoo.specs.input import InputSpec
from ecgcohorts.errors import SpecError
from ecgcohorts.leads import EIGHT_LEADS, LIMB_LEADS, select


def mixing(of: InputSpec) -> Tensor:
    """(lead of the window, lead of EIGHT_LEADS): each lead of a window as a sum of I, II and V1 to V6.

    What is added to a window goes through it, so that III stays II - I, and so on, as in any recording.
    """
    # Asked of the one module that knows the derivations, by what it makes of I alone and of II alone.
    limb = select(np.eye(len(EIGHT_LEADS))[:2], ("I", "II"), LIMB_LEADS)
    chest = np.eye(len(EIGHT_LEADS))[2:]
    rows = dict(zip((*LIMB_LEADS, *EIGHT_LEADS[2:]), np.concatenate([limb, chest]), strict=True))
    return torch.from_numpy(np.stack([rows[lead] for lead in of.leads])).float()


def require_millivolts(of: InputSpec, view: str) -> None:
    """Raise SpecError for windows in another unit: the view adds millivolts."""
    if of.unit != "mV" or of.normalisation != "none":
        found = f"unit {of.unit}" if of.unit != "mV" else f"normalisation {of.normalisation}"
        raise SpecError(f"view {view} adds millivolts: found windows with {found}, expected mV with normalisation none. "
                        "Leave the view out, or set input.normalisation=none.")  # fmt: skip
