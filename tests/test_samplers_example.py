"""The example a visitor copies: it runs, and does what its comments say."""

import runpy
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[1] / "examples" / "samplers_in_your_project.py"


def test_it_runs_and_keeps_its_promises(capsys):
    names = runpy.run_path(str(EXAMPLE))
    assert len(capsys.readouterr().out.splitlines()) == 6 + 3  # 400 and 200 patients, 64 a batch
    for rows in names["sampler"]:
        first, second = rows.reshape(-1, 2).T
        assert (first != second).all()
        assert np.array_equal(names["patients"][first], names["patients"][second])
        assert len(set(names["patients"][first])) == 64
        assert len(set(names["cohorts"][rows])) == 1
    names["sampler"].load_state_dict(names["saved"])
    assert names["sampler"].position == (1, 0)
    assert (
        len(
            [
                line
                for line in EXAMPLE.read_text().splitlines()
                if line and not line.startswith(('"""', "import", "from"))
            ]
        )
        <= 10
    )
