"""timm, imported when a timm part is used and never before: it takes seconds and brings torchvision along."""

from importlib import import_module
from types import ModuleType

from ecgcohorts.errors import MissingExtra, install_line


def timm(part: str = "") -> ModuleType:
    """Return timm, or a part of it such as "optim". Raises MissingExtra, in one line, saying what to install."""
    name = f"timm.{part}" if part else "timm"
    try:
        return import_module(name)
    except RuntimeError as error:
        # torchvision built for another torch: its operators do not load and timm's own guard does not catch it.
        if "torchvision" not in str(error):
            raise
        import torch

        raise MissingExtra(
            f"your torchvision does not match torch {torch.__version__}. Reinstall both from the same index: "
            "pip install --force-reinstall torch torchvision"
        ) from None
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingExtra(f"timm is not installed. Run: {install_line('zoo')}") from None
