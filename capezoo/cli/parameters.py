"""Parameters of several commands: what names weights, and how shells complete it."""

from collections.abc import Iterable

from ecgcohorts.cli.parameters import FILE, Name, argument, option


def _weights_here() -> Iterable[str]:
    from capezoo.zoo.listing import list_models

    return list_models(pretrained=True)


WEIGHTS = Name("WEIGHTS", _weights_here, or_file=True)
WEIGHTS_OUT = Name("TARGET", or_file=True)
weights = argument("weights", WEIGHTS, "encoder.tag, folder, or hf-hub:ORG/REPO@REVISION")
unchecked = option(
    "--unchecked", is_flag=True, help="load weights as they are: no checksums, and numbers may be NaN or infinite"
)
digest_key = option(
    "--digest-key",
    type=FILE,
    help="key with which the digests of training recordings were published, if they are keyed",
)
DEVICE = Name("DEVICE", lambda: ("auto", "cpu", "cuda", "cuda:0"))
device = option(
    "--device",
    type=DEVICE,
    default="auto",
    show_default=True,
    help="what embeds: cpu, cuda, cuda:N, or a GPU if there is one (auto); float32 products are exact on each",
)
offline = option("--offline", is_flag=True, help="take Hub weights from the cache only, as with HF_HUB_OFFLINE=1")
