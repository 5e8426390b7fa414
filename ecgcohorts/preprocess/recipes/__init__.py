"""Named preprocessing recipes, one file a recipe: the file is its name, RECIPE what it holds.

A recipe of one's own is a YAML file with the same fields; docs/preprocessing.md shows one.
"""

from pathlib import Path
from typing import cast

from pydantic import ValidationError

from ecgcohorts import plugins
from ecgcohorts.errors import SpecError, did_you_mean, expectation
from ecgcohorts.io.yaml_text import read_yaml
from ecgcohorts.preprocess.recipes.cape_v1 import RECIPE as CAPE_V1
from ecgcohorts.preprocess.steps import Recipe

__all__ = ["CAPE_V1", "Recipe", "get_recipe", "load_recipe", "recipe_names"]

KIND = "ecgcohorts.preprocess.recipes"
_MAX_YAML_BYTES = 1 << 16  # our default; a recipe has about 1 kB


def recipe_names() -> list[str]:
    """Return the names of the recipes that are installed."""
    return sorted(name.replace("_", "-") for name in plugins.names(KIND))


def get_recipe(name: str) -> Recipe:
    """Return an installed recipe by name. Raises SpecError naming those there are."""
    known = recipe_names()
    if name not in known:
        raise SpecError(
            f"found no recipe {name!r}, expected one of {', '.join(known)}, or a file ending in .yaml."
            + did_you_mean(name, known)
        )
    # A module's name cannot hold the hyphens of a recipe's.
    recipe = cast(Recipe, plugins.load(KIND, name.replace("-", "_")).RECIPE)
    if recipe.name != name:
        raise SpecError(f"recipe plug-in {name!r}: found a recipe called {recipe.name!r}. Give both one name.")
    return recipe


def load_recipe(name_or_yaml: str | Path) -> Recipe:
    """Return a recipe by name, or the one a YAML file describes.

    Raises SpecError, in one line, for an unknown name, a file that is no recipe, and one that gives other steps to the
    name of an installed recipe: two chains of one name would mix in silence.
    """
    path = Path(name_or_yaml)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return get_recipe(str(name_or_yaml))
    recipe = _from_yaml(path)
    if recipe.name in recipe_names() and recipe != get_recipe(recipe.name):
        raise SpecError(f"{path}: found other steps than {recipe.name} has. Give the recipe a name of its own.")
    return recipe


def _from_yaml(path: Path) -> Recipe:
    try:
        return Recipe.model_validate(read_yaml(path, _MAX_YAML_BYTES, "recipe"))
    except ValidationError as error:
        first = error.errors()[0]
        where = _where(first["loc"])
        said = expectation(first)
        # What a step itself says of its values is a sentence; what the library says names what it expected.
        said = said[:1].lower() + said[1:] if first["type"] in ("value_error", "missing") else f"expected {said}"
        raise SpecError(f"{path}: {where}{said}. Correct it there.") from None


def _where(place: tuple[int | str, ...]) -> str:
    """Return `step 3 (trim), width_s: ` for ("steps", 2, "trim", "width_s")."""
    if len(place) > 1 and place[0] == "steps" and isinstance(place[1], int):
        kind = f" ({place[2]})" if len(place) > 2 else ""
        rest = "".join(f", {part}" for part in place[3:])
        return f"step {place[1] + 1}{kind}{rest}: "
    return f"{'.'.join(map(str, place))}: " if place else ""
