"""Fixtures shared by all tests."""

import sys
from pathlib import Path

import pytest

# `victims`, `guard` and the other helpers that attack readers: pytest's importlib mode has no import by name for them.
sys.path.append(str(Path(__file__).parent / "fuzz"))

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real recordings beside the checkout; the test skips, saying so, where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no real recordings at {SHARED}")
    return SHARED
