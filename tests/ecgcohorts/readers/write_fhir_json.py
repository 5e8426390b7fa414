"""Write FHIR Observations with known samples, alone and in Bundles, from the specification of R4."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MDC = "urn:oid:2.16.840.1.113883.6.24"
CODES = dict(zip(LEADS, (131329, 131330, 131389, 131390, 131391, 131392, *range(131331, 131337)), strict=True))
CANARIES = ("KANARIENVOGEL-FHIR-7351", "Fernandez-Fhirsson", "1938-04-27", "Dr-Quillfeather-Fhir", "Anna-Fhir's watch")
(ID, NAME, BORN, PERFORMER, WATCH) = CANARIES


def sampled(numbers: NDArray | str, **changes: Any) -> dict[str, Any]:
    """SampledData of 5 uV a step at 500 Hz; a change of None leaves a key out."""
    text = numbers if isinstance(numbers, str) else " ".join(map(str, numbers.tolist()))
    origin = {"value": 0, "unit": "uV", "system": "http://unitsofmeasure.org", "code": "uV"}
    known = {"origin": origin, "period": 2, "factor": 5, "dimensions": 1, "data": text} | changes
    return {key: value for key, value in known.items() if value is not None}


def component(lead: str, data: dict[str, Any]) -> dict[str, Any]:
    coding = {"system": MDC, "code": str(CODES[lead]), "display": f"MDC_ECG_ELEC_POTL_{lead.upper()}"}
    return {"code": {"coding": [coding]}, "valueSampledData": data}


def observation(*components: dict[str, Any], **changes: Any) -> dict[str, Any]:
    known = {
        "resourceType": "Observation",
        "id": "ekg-1",
        "status": "final",
        "code": {"coding": [{"system": MDC, "code": "131328", "display": "MDC_ECG_ELEC_POTL"}]},
        "subject": {"reference": f"Patient/{ID}", "display": NAME},
        "effectiveDateTime": "2015-02-19T09:30:35+01:00",
        "performer": [{"display": PERFORMER}],
        "device": {"reference": "Device/d1", "display": WATCH},
        "component": list(components),
    } | changes
    return {key: value for key, value in known.items() if value is not None}


def patient(**changes: Any) -> dict[str, Any]:
    known = {"resourceType": "Patient", "id": ID, "gender": "female", "birthDate": BORN, "name": [{"family": NAME}]}
    return known | changes


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [
        {"fullUrl": f"http://fhir.example/{each['resourceType']}/{each.get('id', '')}", "resource": each}
        for each in resources
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def ecg(leads: tuple[str, ...], n_samples: int, seed: int = 0) -> NDArray[np.int64]:
    """(lead, time) in steps of 5 uV: one spike a second over a little noise."""
    rng = np.random.default_rng(seed)
    time = (np.arange(n_samples) % 500 - 250) / 500
    spikes = rng.uniform(80, 280, (len(leads), 1)) * np.exp(-((time / 0.02) ** 2))
    return np.rint(spikes + rng.normal(0, 4, spikes.shape)).astype(np.int64)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: a Bundle of two Observations, their patient, a device and a laboratory value."""
    leads, n_samples = (LEADS[:2], 12) if seconds is None else (LEADS, round(seconds * 500))
    made, resources = [], [patient(), {"resourceType": "Device", "id": "d1", "modelNumber": "TC50"}]
    for number in (1, 2):
        steps = ecg(leads, n_samples, number)
        parts = [component(lead, sampled(row)) for lead, row in zip(leads, steps, strict=True)]
        resources.append(observation(*parts, id=f"ekg-{number}"))
        made.append({"entry": f"ekg-{number}", "leads": leads, "rate_hz": 500.0, "signal_mv": steps * 5 / 1000})
    resources.append({"resourceType": "Observation", "id": "lab", "status": "final", "valueQuantity": {"value": 4.2}})
    path = folder / "ecg.json"
    path.write_text(json.dumps(bundle(*resources)), "utf-8")
    return path, made


def _alone(folder: Path) -> Path:
    path = folder / "ecg.json"
    parts = [component(lead, sampled(row)) for lead, row in zip(("I", "II"), ecg(("I", "II"), 12), strict=True)]
    path.write_text(json.dumps(observation(*parts), indent=1), "utf-8")
    return path


def _of_r5_in_parts(folder: Path) -> Path:
    """Two parts of one lead, in decimals, with an interval and its unit."""
    keys = {"period": None, "interval": 2000, "intervalUnit": "us", "factor": None}
    origin = {"value": 0.5, "unit": "mV"}
    parts = [component("I", sampled(text, origin=origin, **keys)) for text in ("0.25 -0.125 E", "1e-1 .5 L")]
    path = folder / "ecg.json"
    path.write_text(json.dumps(observation(*parts)), "utf-8")
    return path


VARIANT_FIXTURES = {"alone": _alone, "of R5 in parts": _of_r5_in_parts}
