"""The fixture writers as fixtures: pytest's importlib mode has no import by name for helper modules."""

import sys
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


@cache
def load_writer(name: str) -> ModuleType:
    """The module write_<name>.py beside this file."""
    path = Path(__file__).with_name(f"write_{name}.py")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def writers() -> Callable[[str], ModuleType]:
    """`writers("scp")` is the module write_scp.py."""
    return load_writer


@pytest.fixture(scope="session")
def wfdb_files() -> ModuleType:
    return load_writer("wfdb")


@pytest.fixture(scope="session")
def muse_files() -> ModuleType:
    return load_writer("muse_xml")


@pytest.fixture(scope="session")
def hdf5_files() -> ModuleType:
    return load_writer("code_hdf5")


@pytest.fixture(scope="session")
def package() -> ModuleType:
    """The `wfdb` package, as oracle; its import warns on recent pandas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("wfdb")
