"""Weights and what they must be fed: make, find, load, publish, fetch and verify them.

A weight folder is also a valid Hub repository and holds

    model.safetensors      tensors only, in full or half precision; the architecture is repeated in its header
    config.json            architecture and input specification
    card.json              WeightCard
    README.md              the card for people
    LICENSE                of the weights; data licences are named in the card
    golden.npz             a fixed synthetic input and the embedding it must give
    training_digests.bin   waveform digests of all training recordings, 16 bytes each (only if there were any)
    SHA256SUMS             digests of all the others
"""

from capezoo.zoo.create import create_model, load
from capezoo.zoo.listing import list_models, locate, pull
from capezoo.zoo.overlap import Overlap, overlap
from capezoo.zoo.publish import publish, publish_to_hub, write_weights
from capezoo.zoo.verify import Verification, verify

__all__ = [
    "Overlap",
    "Verification",
    "create_model",
    "list_models",
    "load",
    "locate",
    "overlap",
    "publish",
    "publish_to_hub",
    "pull",
    "verify",
    "write_weights",
]
