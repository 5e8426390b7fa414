"""FHIR files written by an adversary: each must be refused at once and cheaply."""

import json
from pathlib import Path

START = '{"resourceType": "Observation", '


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "ecg.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def observation(folder: Path, data: str, **changes: object) -> Path:
    sampled = {"origin": {"value": 0, "unit": "uV"}, "period": 2, "dimensions": 1, "data": data} | changes
    part = {"code": {"text": "I"}, "valueSampledData": sampled}
    return written(folder, json.dumps({"resourceType": "Observation", "component": [part]}))


def case_nested_200000_deep(folder: Path) -> Path:
    return written(folder, START + '"a": ' + "[" * 200_000)


def case_nested_objects_in_a_bundle(folder: Path) -> Path:
    return written(folder, '{"resourceType": "Bundle", "entry": ' + '[{"resource": ' * 90_000)


def case_of_a_million_lists(folder: Path) -> Path:
    return written(folder, START + '"a": [' + "[]," * 1_000_000 + "[]]}")


def case_of_thirty_million_values(folder: Path) -> Path:
    return written(folder, START + '"a": [' + "1," * 30_000_000 + "1]}")


def case_of_65_mib(folder: Path) -> Path:
    return written(folder, START + '"a": "' + "x" * (65 << 20) + '"}')


def case_of_a_quote_that_never_ends(folder: Path) -> Path:
    return written(folder, START + '"a": "' + '\\"' * 10_000_000)


def case_of_an_integer_of_a_million_digits(folder: Path) -> Path:
    return written(folder, START + '"a": ' + "9" * 1_000_000 + "}")


def case_of_a_key_twice(folder: Path) -> Path:
    return written(folder, START + '"resourceType": "Bundle"}')


def case_of_an_infinite_factor(folder: Path) -> Path:
    return observation(folder, "1 2", factor=1e308)


def case_of_a_tiny_period(folder: Path) -> Path:
    return observation(folder, "1 2", period=5e-324)


def case_of_a_hundred_hours(folder: Path) -> Path:
    return observation(folder, "1 " * 2_000_000, period=1000)


def case_of_one_endless_number(folder: Path) -> Path:
    return observation(folder, "1" * 10_000_000)


def case_of_numbers_in_other_scripts(folder: Path) -> Path:
    return observation(folder, "\u0661 \u0662")


def case_of_utf_16(folder: Path) -> Path:
    return written(folder, (START + '"a": 1}').encode("utf-16"))
