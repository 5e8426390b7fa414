"""The file of a trial: what is written is what is read, and a damaged or contradictory one is refused."""

from dataclasses import replace

import numpy as np
import pytest

from capezoo.evaluate.artefact.trial import Cell, Facts, Trial
from ecgcohorts.errors import SourceError

CELL = Cell(kind="tone", strength_uv=200, arm="mixed", seed=3)


def made(homes: int = 2, renderings: int = 3, patients: int = 7) -> Trial:
    generator = np.random.Generator(np.random.PCG64(1))
    facts = Facts(
        seconds=1.5,
        steps=250,
        loss_start=4.0,
        loss_end=None,
        parameters=10,
        dead_units=0,
        train_patients=20,
        age_patients=(5,) * homes,
        sex_patients=(6,) * homes,
        devices=("a", "b"),
        renderings=("a", "b", "c")[:renderings],
    )
    age = generator.uniform(20, 90, patients)
    age[0] = np.nan
    swapped = (2, homes, renderings, patients)
    return Trial(
        cell=CELL,
        made_with="0" * 64,
        facts=facts,
        patient=np.arange(patients),
        age=age,
        sex=np.ones(patients),
        device=np.arange(patients) % 2,
        age_years=generator.normal(size=swapped),
        sex_score=generator.normal(size=swapped),
        constant_age=np.full(homes, 60.0),
        device_score=generator.uniform(size=(patients, 2)),
        largest_z=np.ones((2, homes, renderings)),
    )


@pytest.mark.parametrize(("homes", "renderings"), [(2, 3), (0, 0)])
def test_a_trial_comes_back_as_it_was(tmp_path, homes, renderings):
    trial = made(homes, renderings)
    trial.save(tmp_path / "trials" / f"{trial.cell.key}.npz")
    back = Trial.load(tmp_path / "trials" / "tone-200uv-mixed-hard-seed3.npz")
    assert (back.cell, back.made_with, back.facts) == (trial.cell, trial.made_with, trial.facts)
    for name in (
        "patient",
        "age",
        "sex",
        "device",
        "age_years",
        "sex_score",
        "constant_age",
        "device_score",
        "largest_z",
    ):
        np.testing.assert_array_equal(getattr(back, name), getattr(trial, name))


def test_keys_of_different_cells_differ():
    cells = [CELL.model_copy(update=change) for change in (
        {}, {"kind": "noise"}, {"strength_uv": 0.5}, {"arm": "mixed_group_norm"}, {"positives": "easy"}, {"seed": 30})]  # fmt: skip
    assert len({cell.key for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    "change",
    [
        {"age": np.zeros(6)},
        {"sex": np.zeros(7, np.float32)},
        {"device": np.full(7, 2)},
        {"age_years": np.full((2, 2, 3, 7), np.nan)},
        {"largest_z": np.ones((1, 2, 3))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_arrays_that_contradict_each_other_are_refused(change):
    with pytest.raises(ValueError, match="tone-200uv-mixed-hard-seed3: found"):
        replace(made(), **change)


def test_every_cut_of_a_file_is_refused(tmp_path):
    made().save(tmp_path / "one.npz")
    whole = (tmp_path / "one.npz").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "one.npz").write_bytes(whole[:length])
        with pytest.raises(SourceError, match="Delete the file"):
            Trial.load(tmp_path / "one.npz")


def test_every_flipped_byte_is_refused_or_changes_nothing(tmp_path):
    trial = made()
    trial.save(tmp_path / "one.npz")
    whole = (tmp_path / "one.npz").read_bytes()
    for place in range(0, len(whole), 61):
        (tmp_path / "one.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            back = Trial.load(tmp_path / "one.npz")
        except SourceError:
            continue
        np.testing.assert_array_equal(back.age_years, trial.age_years)
        assert back.facts == trial.facts


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.npz"):
        Trial.load(tmp_path / "none.npz")


def test_a_cell_is_checked():
    with pytest.raises(ValueError, match="strength_uv"):
        Cell(kind="tone", strength_uv=-1, arm="mixed", seed=0)
