"""docs/benchmarks.md says what the kept results say."""

import json
import re
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
