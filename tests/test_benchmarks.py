"""docs/benchmarks.md says what the kept results say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import results


def test_the_page_is_made_of_the_kept_results():
    assert results.PAGE.read_text("utf-8") == results.page(), "python tests/benchmarks/results.py writes it again"


@pytest.mark.parametrize("path", sorted(results.DATA.glob("bench_*.json")), ids=lambda path: path.stem)
def test_every_kept_result_says_how_and_where_it_was_made(path):
    kept = json.loads(path.read_text("utf-8"))
    script = re.search(r"tests/benchmarks/\w+\.py", kept["command"])
    assert script
    assert (results.ROOT / script[0]).is_file()
    assert re.fullmatch(r"[0-9a-f]{7,}", kept["commit"]), "made from a tree with changes: commit first"
    assert "cores" in kept["machine"]
    assert all(len(row) == len(kept["columns"]) for row in kept["rows"])
    assert f"table: {path.stem.removeprefix('bench_')} " in results.PAGE.read_text("utf-8")


def test_the_gpu_script_runs_through_on_a_cpu_in_two_steps(tmp_path):
    """What `make gpu` does on the day there is a GPU, with two steps of everything."""
    script = Path(__file__).parent / "benchmarks" / "gpu.py"
    done = subprocess.run([sys.executable, script, tmp_path / "out", "--steps", "2"], capture_output=True, text=True,
                          timeout=480, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert found["resume"] == {"steps": 2, "equal": True, "largest_difference": 0.0}
    assert found["cape_z"]["held_out_end"]["loss"] > 0
    assert all(rate > 0 for rates in found["speed"].values() for rate in rates.values())
    assert found["versions"]["torch"]
