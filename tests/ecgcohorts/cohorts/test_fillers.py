"""Values that mean "no id" in one cohort are named in its description; the rule for all cohorts can be switched off."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgcohorts.cohorts.spec import CohortSpec, SourceItem, Tables
from ecgcohorts.recording import Recording

COLUMN = {"column": "pid"}


def spec_of(**rules: Any) -> CohortSpec:
    layout = {"reader": "wfdb", "files": {"include": ["*.hea"]}} | rules
    return CohortSpec.model_validate(
        {"name": "mine", "title": "Mine", "licence": "none", "citation": "none", "mains_hz": 50, "layouts": [layout]}
    )


def item(name: str = "r0", **facts: Any) -> SourceItem:
    header = Recording(name, (), 500.0, analog_mv=np.zeros((0, 0)), n_samples=5000, **facts)
    return SourceItem(f"{name}.hea", "", header)


def patients(folder: Path, rule: Any, ids: Sequence[str]) -> list[str | None]:
    """Return the patients of recordings whose ids stand in a table, and whose headers hold the id `header`."""
    (folder / "t.csv").write_text("id,pid\n" + "".join(f"r{number},{one}\n" for number, one in enumerate(ids)))
    (folder / "r0.hea").touch()
    spec = spec_of(tables=[{"file": "t.csv", "key": "id"}], patient=rule)
    tables = spec.load_tables(folder)
    items = [item(f"r{number}", fields={"pid": "header"}) for number in range(len(ids))]
    return [spec.describe(tables, one).patient_id for one in items]


def test_a_description_names_fillers_of_its_own_beside_the_usual_ones(tmp_path: Path) -> None:
    ids = ["KEINE NR", "keine nr ", "4711.0", "4711", "REDACTED", "0815", ""]
    rule = COLUMN | {"fillers": ["Keine Nr", 4711]}
    assert patients(tmp_path, rule, ids) == [None, None, None, None, None, "0815", None]
    # A filler at the first place leaves the word to the next.
    assert patients(tmp_path, [rule, {"header": "pid"}], ids) == ["header"] * 5 + ["0815", "header"]


def test_a_description_switches_the_usual_fillers_off(tmp_path: Path) -> None:
    ids = ["9999", "TEST", "123456789", "0", "", " ", "4711"]
    assert patients(tmp_path, COLUMN, ids) == [None] * 6 + ["4711"]
    off = COLUMN | {"usual_fillers": False, "fillers": [0]}
    assert patients(tmp_path, off, ids) == ["9999", "TEST", "123456789", None, None, None, "4711"]


def test_the_numbers_of_published_data_sets_are_no_fillers(tmp_path: Path) -> None:
    """Their patients are numbered without gaps: 9999 and 111111 are among them."""
    for preset in ("ptb_xl", "code15", "ukb", "mimic_iv_ecg", "heedb_mgb", "heedb_emory", "echonext", "brugada_huca"):
        places = [place for layout in CohortSpec.load(preset).layouts for place in layout.patient]
        assert places
        assert not any(place.usual_fillers for place in places), preset


def test_fillers_of_a_reader_count_for_the_patient_and_other_facts() -> None:
    rule = {"reader": True, "fillers": ["none yet"]}
    spec = spec_of(patient=rule, device=rule, age={"header": "Age", "fillers": ["-9", "99"]})
    tables = Tables(spec.layouts[0], {})
    found = spec.describe(tables, item(patient_id="None yet", device="none yet", fields={"Age": "99"}))
    assert (found.patient_id, found.device) == (None, None)
    assert math.isnan(found.age_years)
    assert spec.describe(tables, item(patient_id="p1")).patient_id == "p1"


def test_fillers_that_nobody_names_leave_the_digest_of_a_description_as_it_was() -> None:
    """Stores know their description by it, and would take no more of the same cohort."""
    spec = spec_of(patient={"header": "pid"})
    assert "fillers" not in spec.model_dump_json()
    for changed in ({"fillers": ["x"]}, {"usual_fillers": False}):
        other = spec_of(patient={"header": "pid"} | changed)
        assert other.sha256 != spec.sha256
        assert CohortSpec.model_validate_json(other.model_dump_json()) == other
