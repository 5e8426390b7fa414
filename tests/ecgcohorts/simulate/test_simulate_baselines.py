"""After the recipe, recorders can be told apart and age and sex can be read off: else no method could be compared.

The bounds are far below what examples/simulated_baselines.py measures on more patients (docs/simulate.md).
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "simulated_baselines.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated_baselines", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def features(example: ModuleType) -> Any:
    return example.extract(100, 11)


def test_recorders_are_told_apart_by_their_spectrum(example: ModuleType, features: Any) -> None:
    assert min(example.cohort_auc(features, features.spectra).values()) > 0.9


def test_recorders_look_alike_where_the_heart_has_its_power(example: ModuleType, features: Any) -> None:
    assert max(example.cohort_auc(features, features.spectra[:, :5]).values()) < 0.75


def test_age_and_sex_are_read_off_the_averaged_beat(example: ModuleType, features: Any) -> None:
    found = [example.within(features, name) for name in ("north", "river", "coast")]
    assert sum(explained for _, explained, _ in found) / 3 > 0.10
    assert min(auc for _, _, auc in found) > 0.70


def test_what_is_learnt_about_sex_in_one_cohort_holds_in_the_others(example: ModuleType, features: Any) -> None:
    for source, target in (("north", "river"), ("river", "coast"), ("coast", "north")):
        assert example.transfer(features, source, target)[1] > 0.62
