"""Named pretraining runs, as functions that return a RunConfig. The function's name is the recipe's name."""

from collections.abc import Callable

from capezoo.recipes.cape import cape_single, cape_x, cape_z
from capezoo.recipes.smoke import smoke_x, smoke_z
from capezoo.specs import RunConfig
from ecgcohorts.errors import SpecError

__all__ = ["cape_single", "cape_x", "cape_z", "get", "names", "smoke_x", "smoke_z"]

# Those that need a seed and nothing else; `cape_single` also needs a cohort.
_BY_NAME: dict[str, Callable[[int], RunConfig]] = {
    recipe.__name__: recipe for recipe in (cape_x, cape_z, smoke_x, smoke_z)
}


def names() -> list[str]:
    """Recipes that `get` knows."""
    return sorted(_BY_NAME)


def get(name: str, seed: int) -> RunConfig:
    """Return a recipe by name. Raises SpecError naming those there are."""
    if name not in _BY_NAME:
        raise SpecError(f"found pretraining recipe {name!r}, expected one of {', '.join(names())}.")
    return _BY_NAME[name](seed)
