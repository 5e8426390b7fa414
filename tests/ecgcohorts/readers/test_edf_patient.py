"""What EDF+ says about the patient, and what plain EDF must not be taken to say."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ecgcohorts.errors import UnreadableRecording
from ecgcohorts.readers._shared.people import NO_BIRTH
from ecgcohorts.readers.edf import reader as edf
from ecgcohorts.recording import Recording

Read = Callable[..., Recording]


@pytest.fixture(scope="session")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("edf")


@pytest.fixture
def read(files: ModuleType, tmp_path: Path) -> Read:
    """`read(signals, ...)` writes a file of these signals and reads it."""

    def call(signals: Any, **how: Any) -> Recording:
        path = tmp_path / "x.edf"
        path.write_bytes(files.document(signals, **how))
        (recording,) = edf.read(path)
        return recording

    return call


@pytest.fixture
def leads(files: ModuleType) -> list[Any]:
    """Twelve leads of one second at 500 Hz, 0.1 uV a step."""
    return files.leads_of(files.known_samples())


class TestPatient:
    def test_edf_plus_has_a_code_a_sex_and_a_birth_date(self, files: ModuleType, read: Read, leads: list[Any]) -> None:
        found = read(leads, kind="EDF+C")
        assert (found.patient_id, found.sex) == (files.CODE, "female")
        assert found.age_years == pytest.approx(50.83, abs=0.01)

    @pytest.mark.parametrize(
        ("field", "code", "sex", "has_age"),
        [
            ("P-17 F 02-MAY-1951", "P-17", "female", True),  # no name
            ("P-17 m 02-may-1951", "P-17", "male", True),
            ("P-17 F", "P-17", "female", False),
            ("P-17 F Name", "P-17", "female", False),
            ("P-17", "P-17", None, False),
            ("P-17 X 02-MAY-1951", "P-17", None, True),
            ("P-17 X", "P-17", None, False),
            ("P-17 02-MAY-1951", "P-17", None, True),  # no sex
            ("P-17  02-MAY-1951", "P-17", None, True),
            ("P-17 02-MAY-1951 Name", "P-17", None, True),
            ("F 02-MAY-1951", None, "female", True),  # no code
            ("X F 02-MAY-1951", None, "female", True),
            ("P-17 F 01-JAN-1900 X", "P-17", "female", False),
            ("P-17 F 01-JAN-2010 X", "P-17", "female", False),
            ("Anna Quexwiddle", None, None, False),
            ("Anna Maria Quexwiddle", None, None, False),
            ("Quexwiddle", None, None, False),
            ("F", None, None, False),
        ],
    )
    def test_subfields_may_be_left_out(
        self, field: str, code: str | None, sex: str | None, has_age: bool, read: Read, leads: list[Any]
    ) -> None:
        found = read(leads, kind="EDF+C", patient=field)
        assert (found.patient_id, found.sex) == (code, sex)
        assert found.age_years == (pytest.approx(50.83, abs=0.01) if has_age else None)
        assert not {"Anna", "Maria", "Name", "Quexwiddle"} & {*found.fields.values()}
        assert (NO_BIRTH in found.notes) == ("-JAN-" in field)

    @pytest.mark.parametrize("field", ["X X X X", "0000 X X X", "UNKNOWN X X X", "", "somebody"])
    def test_unknown_is_no_patient(self, field: str, read: Read, leads: list[Any]) -> None:
        found = read(leads, kind="EDF+C", patient=field)
        assert (found.patient_id, found.sex, found.age_years) == (None, None, None)

    def test_the_free_text_of_plain_edf_is_no_id(self, files: ModuleType, read: Read, leads: list[Any]) -> None:
        found = read(leads)
        assert (found.patient_id, found.sex, found.age_years) == (None, None, None)
        assert set(found.fields) == {"StartDate", "StartTime"}

    @pytest.mark.parametrize("kind", ["", "EDF+C"])
    def test_names_and_staff_are_never_taken(self, kind: str, files: ModuleType, read: Read, leads: list[Any]) -> None:
        found = read([*leads, files.Annotations([0.0] * 10)], kind=kind)
        shown = repr((found.leads, found.notes, dict(found.fields), found.device, found.site))
        assert not [text for text in files.CANARIES[1:] if text in shown]

    def test_messages_repeat_no_header(self, files: ModuleType, tmp_path: Path, leads: list[Any]) -> None:
        data, path = files.document(leads, kind="EDF+C"), tmp_path / "cut.edf"
        parts = [text[at : at + 5] for text in files.CANARIES for at in range(len(text) - 4)]
        for at in range(8, 256):
            path.write_bytes(data[:at] + data[at + 9 :])
            with pytest.raises(UnreadableRecording) as caught:
                list(edf.read(path))
            assert not [part for part in parts if part in str(caught.value)]
