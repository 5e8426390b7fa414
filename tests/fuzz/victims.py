"""The files that are attacked: the fixtures of every reader's writer, collected from the registry.

A writer is `write_<name>.py` in tests/ecgcohorts/readers, or in a folder of ECGCOHORTS_WRITERS, where a package of its own
keeps the writers of its readers. It has CANARIES and `write(folder, seconds=None)`, and may have:

VARIANT_FIXTURES: name -> function(folder) that makes one more small file and returns its path
mend(data): the checksums of a damaged file made right again, so that the damage is not stopped by them
CHECKED: name -> function(folder) that returns the path to read, the file a checksum covers, and which bits of it
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ecgcohorts import plugins, readers

TESTS = Path(__file__).resolve().parents[1]
WRITERS = TESTS / "ecgcohorts" / "readers"
HOSTILE = WRITERS / "hostile"
sys.path.append(str(WRITERS))  # hostile modules import the writer of their format
NAMES = plugins.names(readers.KIND)


@dataclass(frozen=True)
class Fixture:
    """One small intact file and what lies beside it, in a folder of its own."""

    name: str
    path: Path  # the one to read

    @property
    def files(self) -> list[Path]:
        """Every regular file of the fixture: each is damaged in turn."""
        return sorted(path for path in self.path.parent.rglob("*") if path.is_file() and not path.is_symlink())


@cache
def load_file(path: Path) -> ModuleType:
    """A module by its file."""
    name = f"attacked_{path.parent.name}_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


def writer_of(reader: str) -> ModuleType:
    """The fixture writer of a reader."""
    for path in _places(reader):
        if path.is_file():
            return load_file(path)
    raise AssertionError(f"the reader {reader} brings no fixture: write write_{reader}.py in {WRITERS}")


def has_writer(reader: str) -> bool:
    return any(path.is_file() for path in _places(reader))


def _places(reader: str) -> list[Path]:
    others = os.environ.get("ECGCOHORTS_WRITERS", "")
    return [Path(folder) / f"write_{reader}.py" for folder in [str(WRITERS), *others.split(os.pathsep)] if folder]


def fixtures(reader: str, folder: Path) -> list[Fixture]:
    """Make all small fixtures of a reader, each in its own folder below `folder`."""
    writer = writer_of(reader)
    makers: dict[str, Callable[[Path], Path]] = {"plain": lambda place: writer.write(place)[0]}
    makers |= getattr(writer, "VARIANT_FIXTURES", {})
    made = []
    for name, make in makers.items():
        place = folder / name
        place.mkdir(parents=True)
        made.append(Fixture(name, make(place)))
    return made


def hostile_cases() -> Iterator[tuple[str, str]]:
    """(name of a module in tests/ecgcohorts/readers/hostile, name of a function `case_*` in it)."""
    for path in sorted(HOSTILE.glob("[!_]*.py")):
        for case in vars(load_file(path)):
            if case.startswith("case_"):
                yield path.stem, case
