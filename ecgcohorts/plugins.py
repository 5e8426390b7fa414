"""Find plug-ins by file name: the modules of a package, and third-party entry points in the group of that name."""

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

from ecgcohorts.errors import SpecError, did_you_mean


@cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of all plug-ins of a kind such as `ecgcohorts.readers`, without importing any."""
    package = import_module(kind)
    own = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
    return tuple(sorted(own | {point.name for point in entry_points(group=kind)}))


@cache  # looking up entry points reads the metadata of every installed distribution: 18 ms
def load(kind: str, name: str) -> ModuleType:
    """Import and return one plug-in. Raises SpecError, with all names, for an unknown one."""
    if name not in names(kind):
        noun, known = kind.rpartition(".")[2].removesuffix("s"), names(kind)
        raise SpecError(f"found no {noun} {name!r}, expected one of {', '.join(known)}.{did_you_mean(name, known)}")
    # An entry point comes first: with the name of our own plug-in it replaces ours.
    for point in entry_points(group=kind):
        if point.name == name:
            module: ModuleType = point.load()
            return module
    return import_module(f"{kind}.{name}")
