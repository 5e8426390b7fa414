"""What may be done about a signature in training: the arms of the control, each a few independent choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ecgcohorts.errors import SpecError, did_you_mean

_MORE = 4  # times as many pairs a batch as there are devices: as many of the anchor's own device as in one of its own


@dataclass(frozen=True)
class Arm:
    """What an arm does otherwise than mixed batches.

    batches: from all devices, from one each, or from one each of random groups that are no devices. statistics: of
    normalisation while training, over the batch, over each device's part of it, or over each recording (GroupNorm).
    drawn_per: a patient has one device, or each view has another. on_top: each view also wears the signature of a random
    device. times_pairs: as many pairs in a batch. trained: else weights are random, and only the statistics of BatchNorm
    are estimated. own_devices: those of the cohort instead of made-up ones, and no signature.
    """

    batches: Literal["mixed", "devices", "random_groups"] = "mixed"
    statistics: Literal["batch", "device", "group_norm"] = "batch"
    drawn_per: Literal["patient", "view"] = "patient"
    on_top: bool = False
    times_pairs: int = 1
    trained: bool = True
    own_devices: bool = False


# in_distribution needs no fellow with statistics per device: a batch of one device has no others.
ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "mixed": Arm(),
        "in_distribution": Arm(batches="devices"),
        "mixed_per_device": Arm(statistics="device"),
        "mixed_group_norm": Arm(statistics="group_norm"),
        "in_distribution_group_norm": Arm(batches="devices", statistics="group_norm"),
        "device_per_view": Arm(drawn_per="view"),
        "random_groups": Arm(batches="random_groups"),
        "augmented": Arm(on_top=True),
        "mixed_more_pairs": Arm(times_pairs=_MORE),
        "random_weights": Arm(trained=False),
        "own_devices": Arm(own_devices=True),
        "own_devices_in_distribution": Arm(batches="devices", own_devices=True),
    }
)


def arm_named(name: str) -> Arm:
    """Return an arm. Raises SpecError for an unknown name."""
    if name not in ARMS:
        raise SpecError(f"found arm {name!r}, expected one of {', '.join(ARMS)}.{did_you_mean(name, ARMS)}")
    return ARMS[name]
