"""Acme files of two patients; the number at the end of a name is the age."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

WRITER = Path(__file__).parents[2] / "ecgcohorts" / "readers" / "write_acme.py"
PATIENT = slice(15, 27)  # of a file: 12 bytes


def write(root: Path, write_wfdb: Callable[..., None]) -> dict[Path, dict[str, dict[str, object]]]:
    """Write files below `root`. Returns folder -> recording id -> what must be found."""
    found = spec_from_file_location("write_acme", WRITER)
    assert found is not None
    assert found.loader is not None
    acme = module_from_spec(found)
    found.loader.exec_module(acme)
    source, _ = acme.write(root, 8.0)
    data = bytearray(source.read_bytes())
    source.unlink()
    for patient, age in ((b"4711", 30), (b"0000", 40)):
        data[PATIENT] = patient.ljust(12)
        (root / f"ecg_{age}.acme").write_bytes(acme.mend(bytes(data)))
    facts = {"cohort": "acme_hospital", "mains_hz": 50}
    return {
        root: {
            "ecg_30": facts | {"patient_id": "4711", "age_years": 30},
            "ecg_40": facts | {"patient_id": None, "age_years": 40},
        }
    }
