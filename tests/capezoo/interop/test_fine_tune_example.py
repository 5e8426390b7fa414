"""The example of fine-tuning runs, learns, and tests on patients it has not seen."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "fine_tune.py"


def test_it_learns_and_tests_other_patients(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    outcome = main(["--store", str(simulated / "store.zarr"), "--steps", "20"])
    assert np.mean(outcome.losses[-5:]) < np.mean(outcome.losses[:5])
    assert outcome.test.low <= outcome.test.value <= outcome.test.high
    people = [{bytes(row) for row in part.patient_ids} for part in (outcome.train, outcome.tested)]
    assert not people[0] & people[1]
    assert len(people[0]) + len(people[1]) == 72
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"sex: AUROC {outcome.test.value:.3f} (95 % {outcome.test.low:.3f}-")
    assert lines[1].endswith(f"on {len(outcome.tested)} recordings of {len(people[1])} other patients")


def test_published_weights_start_where_they_were(simulated: Path, run_folder: Path, tmp_path: Path) -> None:
    import capezoo

    weights = capezoo.publish(run_folder, tmp_path / "weights", digests="plain")
    main = runpy.run_path(str(EXAMPLE))["main"]
    arguments = ["--store", str(simulated / "store.zarr"), "--steps", "2"]
    again = [main([*arguments, "--weights", str(weights)]).losses for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != main(arguments).losses
