"""AliveCor files written by an adversary: each must be refused at once and cheaply."""

import json
from pathlib import Path

START = '{"recordedAt": "2019", "algorithmDetermination": "normal", "data": {"raw": '


def written(folder: Path, text: str) -> Path:
    path = folder / "ecg.json"
    path.write_text(text)
    return path


def recording(folder: Path, samples: object, **changes: object) -> Path:
    block = {"frequency": 300, "amplitudeResolution": 500, "samples": samples} | changes
    return written(folder, f"{START}{json.dumps(block)}}}}}")


def case_nested_200000_deep(folder: Path) -> Path:
    return written(folder, START + '{"samples": ' * 200_000)


def case_of_thirty_million_samples(folder: Path) -> Path:
    return written(folder, START + '{"samples": {"leadI": [' + "1," * 30_000_000 + "1]}}}}")


def case_of_a_million_leads(folder: Path) -> Path:
    return recording(folder, {f"lead{number}": [] for number in range(150_000)})


def case_of_nested_samples(folder: Path) -> Path:
    return recording(folder, {"leadI": [[1, 2], [3]]})


def case_of_texts_as_samples(folder: Path) -> Path:
    return recording(folder, {"leadI": ["1", "x" * 1_000_000]})


def case_of_an_infinite_step(folder: Path) -> Path:
    return recording(folder, {"leadI": [1, 2]}, amplitudeResolution=1e299)


def case_of_a_rate_of_zero(folder: Path) -> Path:
    return recording(folder, {"leadI": [1, 2]}, frequency=0)


def case_of_integers_of_thousands_of_digits(folder: Path) -> Path:
    return recording(folder, {"leadI": [1, 10**4000]})


def case_of_floats_beyond_range(folder: Path) -> Path:
    return written(folder, START + '{"frequency": 300, "amplitudeResolution": 5, "samples": {"leadI": [1.0, 1e999]}}}}')
