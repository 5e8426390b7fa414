"""Every cohort preset keeps the contract. Collected from the registry; a preset without a fixture fails.

A fixture is `tests/contracts/cohorts/<name>.py` with `write(root, write_wfdb)`, which makes files in the published
layout and says what must be found: folder -> recording id -> facts. A label expected as NaN must be unknown. `PATIENTS`
are ids of the published form, those foremost that elsewhere mean "no id"; each must stay the id of a patient.
"""

import importlib.util
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from ecgcohorts import plugins
from ecgcohorts.cohorts.spec import CohortSpec, SourceItem, Tables
from ecgcohorts.leads import TWELVE_LEADS

NAMES = plugins.names("ecgcohorts.cohorts.presets")
FIXTURES = Path(__file__).parent / "cohorts"


def write_wfdb(
    folder: Path,
    name: str,
    rate: int,
    n: int,
    comments: Sequence[str] = (),
    *,
    leads: Sequence[str] = TWELVE_LEADS,
    gain: int = 1000,
    mat: bool = False,
    when: str = "",
) -> None:
    """Write one 16-bit record of n samples; `mat`: as the Challenge does, behind the 24 bytes of a MAT v4 header."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = (np.arange(n)[:, None] % 97 + np.arange(len(leads))).astype("<i2")  # (time, lead)
    head = struct.pack("<5i", 30, len(leads), n, 0, 4) + b"val\0" if mat else b""
    file, form = (f"{name}.mat", "16x1+24") if mat else (f"{name}.dat", "16")
    (folder / file).write_bytes(head + samples.tobytes())
    checksums = samples.sum(axis=0, dtype=np.int16)
    lines = [f"{name} {len(leads)} {rate} {n} {when}".strip()]
    lines += [
        f"{file} {form} {gain}.0(0)/mV 16 0 {first} {checksum} 0 {lead}"
        for lead, first, checksum in zip(leads, samples[0], checksums, strict=True)
    ]
    (folder / f"{name}.hea").write_text("\n".join([*lines, *(f"# {comment}" for comment in comments)]) + "\n")


def fixture_of(name: str) -> ModuleType:
    path = FIXTURES / f"{name}.py"
    assert path.is_file(), f"the preset {name} brings no fixture: write {path.name}"
    found = importlib.util.spec_from_file_location(f"cohort_fixture_{name}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_named_after_its_file_and_goes_to_json_and_yaml_and_back(name: str) -> None:
    spec = CohortSpec.load(name)
    assert spec.name == name
    assert CohortSpec.model_validate_json(spec.model_dump_json()) == spec
    assert CohortSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec
    assert CohortSpec.model_validate(yaml.safe_load(spec.to_yaml())) == spec


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_states_licence_source_and_mains(name: str) -> None:
    spec = CohortSpec.load(name)
    assert spec.licence.strip()
    assert "doi:" in spec.citation or "https://" in spec.citation or spec.citation.startswith("your own data")
    stated = [cohort.mains_hz for cohort in spec.cohorts] or [spec.mains_hz]
    assert all(mains in (50, 60, "auto") for mains in stated)
    plugins_there = plugins.names("ecgcohorts.readers")
    assert {layout.reader for layout in spec.layouts} <= set(plugins_there)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_finds_every_fact_in_the_published_layout(name: str, tmp_path: Path) -> None:
    spec = CohortSpec.load(name)
    layouts = set()
    for folder, expected in fixture_of(name).write(tmp_path, write_wfdb).items():
        tables = spec.load_tables(folder)
        layouts.add(tables.layout.name)
        items = spec.sources(folder)
        assert [item.error for item in items] == [None] * len(items)
        found = {(d := spec.describe(tables, item)).recording_id: d for item in items}
        assert len(found) == len(items)
        assert set(found) == set(expected)
        for recording_id, facts in expected.items():
            for fact, value in facts.items():
                had = getattr(found[recording_id], fact)
                if fact == "labels":
                    assert isinstance(value, dict)
                    chosen = {label: had[label] for label in value}
                    assert chosen == pytest.approx(value, nan_ok=True), recording_id
                elif fact == "age_years" and value is None:
                    assert math.isnan(had), recording_id
                else:
                    assert had == value, (recording_id, fact)
    assert layouts == {layout.name for layout in spec.layouts}, "the fixture leaves a layout out"


class RenamedRows:
    """The rows of a table in which a patient has another id."""

    def __init__(self, rows: Any, old: str, new: str) -> None:
        self.rows, self.old, self.new = rows, old, new

    def get(self, key: str) -> tuple[str, ...] | None:
        row = self.rows.get(key.replace(self.new, self.old))
        # As a whole number printed as a float, too: 15709.0.
        return row and tuple(
            cell.replace(self.old, self.new) if cell.removesuffix(".0") == self.old else cell for cell in row
        )


def renamed(item: SourceItem, tables: Tables, old: str, new: str) -> tuple[SourceItem, Tables]:
    """Return a recording and its tables as they were if the patient's id were another."""
    fields = {key: new if value == old else value for key, value in item.header.fields.items()} if item.header else {}
    header = item.header and replace(item.header, fields=fields)
    loaded = {name: replace(table, rows=RenamedRows(table.rows, old, new)) for name, table in tables.loaded.items()}
    return replace(item, path=item.path.replace(old, new), header=header), replace(tables, loaded=loaded)


@pytest.mark.parametrize("name", NAMES)
def test_no_patient_of_a_published_cohort_counts_as_nobody(name: str, tmp_path: Path) -> None:
    """9999 and 111111 are fillers in hospitals, and patients where patients are numbered without gaps."""
    spec = CohortSpec.load(name)
    has_ids = any(not place.reader for layout in spec.layouts for place in layout.patient)
    if not has_ids or spec.about.access in (None, "own"):
        return  # no patients, or of a hospital, where the rule for fillers stays
    fixture = fixture_of(name)
    patients = getattr(fixture, "PATIENTS", ())
    assert patients, f"the preset {name} has ids: state some of the published form as PATIENTS in its fixture"
    checked = 0
    for folder in fixture.write(tmp_path, write_wfdb):
        tables = spec.load_tables(folder)
        for item in islice(spec.scan(folder), 3):
            old = spec.describe(tables, item).patient_id
            for new in patients if old is not None else ():
                checked += 1
                changed, others = renamed(item, tables, old, new)
                assert spec.describe(others, changed).patient_id == new
    assert checked >= len(patients)
