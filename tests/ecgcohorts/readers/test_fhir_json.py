"""FHIR Observations: origin, factor and units, parts, codes of leads, bundles with patients, and what is refused."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import fhir_json
from ecgcohorts.readers._shared.json_text import BAD_BYTES
from ecgcohorts.recording import Recording

UV = {"value": 0, "unit": "uV"}


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("fhir_json")


def save(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "ecg.json"
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return path


def one(folder: Path, content: dict[str, Any]) -> Recording:
    (recording,) = ec.read(save(folder, content))
    return recording


def refused(folder: Path, content: dict[str, Any]) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        ec.read(save(folder, content))
    return caught.value


def test_value_is_origin_plus_factor_times_number(files: ModuleType, tmp_path: Path) -> None:
    """FHIR: the factor applies to the samples before they are added to the origin."""
    data = files.sampled("100 -20 0", origin={"value": 300, "unit": "uV"}, factor=2.5)
    recording = one(tmp_path, files.observation(files.component("I", data)))
    np.testing.assert_allclose(recording.signal_mv, [[0.55, 0.25, 0.3]], rtol=1e-12)
    assert recording.digital.tolist() == [[100, -20, 0]]


@pytest.mark.parametrize(("origin", "mv"), [
    ({"value": 0, "code": "mV"}, 1.0), ({"value": 0, "unit": "microvolt"}, 1e-3), ({"value": 0, "code": "uV", "unit": "Mikrovolt"}, 1e-3),
    ({"value": 0, "unit": "µV"}, 1e-3), ({"value": 0, "unit": "V"}, 1e3), ({"value": 0, "code": "nV"}, 1e-6),
])  # fmt: skip
def test_units_of_the_origin(origin: dict[str, Any], mv: float, files: ModuleType, tmp_path: Path) -> None:
    data = files.sampled("3 -7", origin=origin, factor=None)
    recording = one(tmp_path, files.observation(files.component("V3", data)))
    np.testing.assert_allclose(recording.signal_mv, [[3 * mv, -7 * mv]], rtol=1e-12)


def test_the_example_of_hl7_has_no_unit(files: ModuleType, tmp_path: Path) -> None:
    """Its origin is 2048 without unit: what that means, nobody can say."""
    data = files.sampled("2041 2043 2037", origin={"value": 2048}, period=10, factor=1.612, lowerLimit=-3300)
    error = refused(tmp_path, files.observation(files.component("I", data)))
    assert error.reason is Reason.UNIT


def test_every_lead_by_its_number(files: ModuleType, tmp_path: Path) -> None:
    parts = [files.component(lead, files.sampled(f"{number} {number}")) for number, lead in enumerate(files.LEADS)]
    for part in parts:
        del part["code"]["coding"][0]["display"]
    recording = one(tmp_path, files.observation(*parts))
    assert recording.leads == files.LEADS
    assert recording.digital[:, 0].tolist() == list(range(12))


@pytest.mark.parametrize(("code", "lead"), [
    ({"coding": [{"system": "urn:iso:std:iso:11073:10101", "code": "131390"}]}, "aVR"),
    ({"coding": [{"code": "MDC_ECG_ELEC_POTL_AVL"}]}, "aVL"), ({"coding": [{"display": "MDC_ECG_LEAD_V6"}]}, "V6"),
    ({"text": "aVF"}, "aVF"), ({"coding": [{"system": "http://loinc.org", "code": "8867-4"}], "text": "II"}, "II"),
])  # fmt: skip
def test_other_ways_to_name_a_lead(code: dict[str, Any], lead: str, files: ModuleType, tmp_path: Path) -> None:
    part = {"code": code, "valueSampledData": files.sampled("1 2")}
    assert [ec.leads.canonical(name) for name in one(tmp_path, files.observation(part)).leads] == [lead]


def test_a_number_and_a_name_that_contradict_each_other(files: ModuleType, tmp_path: Path) -> None:
    part = files.component("I", files.sampled("1 2"))
    part["code"]["coding"][0]["display"] = "MDC_ECG_ELEC_POTL_II"
    assert refused(tmp_path, files.observation(part)).reason is Reason.HEADER


def test_one_lead_may_be_the_observation_itself(files: ModuleType, tmp_path: Path) -> None:
    part = files.component("I", files.sampled("1 2 3"))
    recording = one(tmp_path, files.observation(component=None, **part))
    assert (recording.leads, recording.digital.tolist()) == (("I",), [[1, 2, 3]])


def test_parts_of_a_lead_follow_each_other(files: ModuleType, tmp_path: Path) -> None:
    """As in HL7's example, and as watches export 30 s in pieces."""
    order = (("I", "1 2"), ("I", "3"), ("II", "4 5"), ("II", "6"))
    recording = one(tmp_path, files.observation(*(files.component(lead, files.sampled(text)) for lead, text in order)))
    assert recording.digital.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert fhir_json.JOINED in recording.notes
    odd = (("I", "1 2"), ("I", "3"), ("II", "4"), ("II", "5 6"))
    parts = [files.component(lead, files.sampled(text)) for lead, text in odd]
    assert refused(tmp_path, files.observation(*parts)).reason is Reason.TRUNCATED
    parts = [files.component("I", files.sampled("1 2")), files.component("I", files.sampled("1 2", factor=4))]
    assert refused(tmp_path, files.observation(*parts)).reason is Reason.UNSUPPORTED


def test_errors_and_limits_are_missing(files: ModuleType, tmp_path: Path) -> None:
    recording = one(tmp_path, files.observation(files.component("I", files.sampled("1 E 3 L U"))))
    np.testing.assert_array_equal(np.isnan(recording.signal_mv), [[False, True, False, True, True]])
    assert fhir_json.OUT_OF_RANGE in recording.notes
    recording = one(tmp_path, files.observation(files.component("I", files.sampled("1.5 E 3e0 -.25"))))
    np.testing.assert_allclose(recording.signal_mv * 200, [[1.5, np.nan, 3, -0.25]])
    assert fhir_json.OUT_OF_RANGE not in recording.notes


@pytest.mark.parametrize(("changes", "reason"), [
    ({"period": None}, Reason.HEADER), ({"period": 0}, Reason.HEADER), ({"period": -2}, Reason.HEADER), ({"period": "2"}, Reason.HEADER),
    ({"period": None, "interval": 2, "intervalUnit": "min"}, Reason.HEADER), ({"offsets": "0 1"}, Reason.HEADER),
    ({"dimensions": 2}, Reason.UNSUPPORTED), ({"dimensions": None}, Reason.UNSUPPORTED), ({"factor": 0}, Reason.UNIT),
    ({"factor": "x"}, Reason.UNIT), ({"origin": None}, Reason.UNIT), ({"origin": {"value": 0, "unit": "mmHg"}}, Reason.UNIT),
    ({"data": None}, Reason.EMPTY), ({"data": ""}, Reason.EMPTY), ({"data": "1 x"}, Reason.HEADER), ({"data": "1 nan"}, Reason.HEADER),
    ({"data": "1 1_0"}, Reason.HEADER), ({"data": "1 \u0661"}, Reason.HEADER), ({"data": "1 --2"}, Reason.HEADER),
    ({"data": "1 EE"}, Reason.HEADER), ({"data": "1 1e999"}, Reason.HEADER), ({"data": "1 2147483648"}, Reason.UNSUPPORTED),
    ({"data": "1 99999999999999999999"}, Reason.HEADER),
])  # fmt: skip
def test_sampled_data_that_is_refused(
    changes: dict[str, Any], reason: Reason, files: ModuleType, tmp_path: Path
) -> None:
    assert refused(tmp_path, files.observation(files.component("I", files.sampled("1 2", **changes)))).reason is reason


def test_leads_of_unequal_length_or_rate(files: ModuleType, tmp_path: Path) -> None:
    first = files.component("I", files.sampled("1 2 3"))
    for second in (files.sampled("1 2"), files.sampled("1 2 3", period=4)):
        error = refused(tmp_path, files.observation(first, files.component("II", second)))
        assert error.reason is Reason.TRUNCATED


def test_other_signals_are_left_out_with_a_note(files: ModuleType, tmp_path: Path) -> None:
    pleth = {"code": {"text": "pleth"}, "valueSampledData": files.sampled("1 2 3", period=8)}
    rate = {"code": {"text": "Heart rate"}, "valueQuantity": {"value": 70}}
    recording = one(tmp_path, files.observation(pleth, rate, files.component("I", files.sampled("1 2"))))
    assert recording.leads == ("I",)
    assert fhir_json.OTHERS in recording.notes
    assert refused(tmp_path, files.observation(pleth)).reason is Reason.EMPTY
    assert refused(tmp_path, files.observation(rate)).reason is Reason.EMPTY


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled"])
def test_a_withdrawn_observation_is_no_recording(status: str, files: ModuleType, tmp_path: Path) -> None:
    content = files.observation(files.component("I", files.sampled("1 2")), status=status)
    assert refused(tmp_path, content).reason is Reason.UNSUPPORTED


def test_context_of_a_bundle(files: ModuleType, tmp_path: Path) -> None:
    path, _ = files.write(tmp_path)
    first, second = ec.read(path)
    assert (first.recording_id, second.recording_id) == ("ekg-1", "ekg-2")
    assert first.patient_id == second.patient_id == files.ID
    assert (first.sex, first.device) == ("female", "TC50")
    assert first.acquired_at == datetime(2015, 2, 19, 9, 30, 35)
    assert first.age_years == pytest.approx(76.8, abs=0.1)
    assert files.WATCH not in repr(first.device)


@pytest.mark.parametrize(("reference", "identifiers", "expected"), [
    ("Patient/7", [], "7"), ("http://fhir.example/r4/Patient/7", [], "7"), ("Patient/0000", [], None), ("Group/7", [], None),
    ("urn:uuid:1", [{"system": "urn:mrn", "value": "X9"}], "urn:mrn/X9"), ("urn:uuid:1", [{"value": "X9"}], "X9"),
    ("urn:uuid:1", [{"value": "X9"}, {"value": "Y9"}], None), ("urn:uuid:1", [{"value": "REMOVED"[:0]}], None), ("urn:uuid:1", [], None),
])  # fmt: skip
def test_an_id_that_means_the_same_in_another_file(
    reference: str, identifiers: list[Any], expected: str | None, files: ModuleType, tmp_path: Path
) -> None:
    """`urn:uuid` names a patient inside one bundle only."""
    content = files.bundle(
        files.observation(files.component("I", files.sampled("1 2")), subject={"reference": reference})
    )
    content["entry"].append({"fullUrl": "urn:uuid:1", "resource": files.patient(id="p", identifier=identifiers)})
    assert one(tmp_path, content).patient_id == expected


def test_a_contained_patient(files: ModuleType, tmp_path: Path) -> None:
    person = files.patient(id="p", gender="male", birthDate="1960")
    content = files.observation(
        files.component("I", files.sampled("1 2")), subject={"reference": "#p"}, contained=[person]
    )
    recording = one(tmp_path, content)
    assert (recording.sex, recording.age_years, recording.patient_id) == ("male", None, None)  # a year is no birth date


def test_entries_of_a_bundle(files: ModuleType, tmp_path: Path) -> None:
    observations = [files.observation(files.component("I", files.sampled(f"{n} 2")), id=None) for n in range(3)]
    observations[1]["id"] = "middle"
    path = save(tmp_path, files.bundle(*observations))
    assert [one.source.entry for one in fhir_json.scan(path)] == ["0", "middle", "2"]
    assert [one.digital[0, 0] for one in fhir_json.read(path, ["2", "middle"])] == [2, 1]
    with pytest.raises(UnreadableRecording) as caught:
        list(fhir_json.read(path, ["1"]))
    assert caught.value.reason is Reason.MISSING_FILE
    assert refused(tmp_path, files.bundle(observations[1], observations[1])).reason is Reason.HEADER


def test_a_letter_in_another_encoding_costs_a_note(files: ModuleType, tmp_path: Path) -> None:
    path = save(
        tmp_path, files.observation(files.component("I", files.sampled("1 2")), performer=[{"display": "Müller"}])
    )
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xfc"))
    (recording,) = ec.read(path)
    assert BAD_BYTES in recording.notes
    assert recording.digital.tolist() == [[1, 2]]


@pytest.mark.parametrize(("text", "reason"), [
    ('{"resourceType": "Observation", "id": "a"', Reason.TRUNCATED), ('{"resourceType": "Observation"} x', Reason.HEADER),
    ('{"resourceType": "Observation", "resourceType": "Observation"}', Reason.HEADER), ('{"resourceType": "Observation", "a": NaN}', Reason.HEADER),
    ('{"resourceType": "Observation", "a": ' + "[" * 100 + "]" * 100 + "}", Reason.LIMIT),
    ('{"resourceType": "Observation", "a": "[[[[{{{{' + "[" * 100 + '"}', Reason.EMPTY),
    ('{"resourceType": "Observation", "component": {"a": 1}}', Reason.EMPTY), ('{"resourceType": "Bundle", "entry": [1, null, []]}', Reason.EMPTY),
    ('{"resourceType": "Patient", "a": {"resourceType": "Observation"}}', Reason.FORMAT),
])  # fmt: skip
def test_json_that_is_refused(text: str, reason: Reason, tmp_path: Path) -> None:
    path = tmp_path / "ecg.json"
    path.write_text(text)
    with pytest.raises(UnreadableRecording) as caught:
        ec.read(path)
    assert caught.value.reason is reason
