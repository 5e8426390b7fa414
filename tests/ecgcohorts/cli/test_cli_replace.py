"""`plot` and `report` replace files of their own, and no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgcohorts.cli.program import main
from ecgcohorts.ingest import ingest


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = 0
    try:
        main(list(map(str, arguments)))
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().err


@pytest.fixture
def store(make_cohort: Callable[..., Any], tmp_path: Path) -> Path:
    raw = make_cohort(patients=2)
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    return tmp_path / "s.zarr"


def test_a_report_is_made_anew_and_no_other_file_is_replaced(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "ecg.svg"
    for out, command in ((page, ("report", store)), (picture, ("plot", store, 0))):
        assert outcome(capsys, *command, "-o", out) == (0, "")
        first = out.read_bytes()
        for mine in (b"a thesis", b"", first[:12]):
            out.write_bytes(mine)
            code, err = outcome(capsys, *command, "-o", out)
            assert code == 2
            assert err.endswith(f"{out}: this file exists. Name another, or pass --force to replace it.\n")
            assert out.read_bytes() == mine
        assert outcome(capsys, *command, "-o", out, "--force") == (0, "")
        assert out.read_bytes() == first
    assert outcome(capsys, "report", store, "-o", page) == (0, "")
    assert outcome(capsys, "plot", store, 0, "-o", picture)[0] == 2
    assert outcome(capsys, "plot", store, 0, "-o", page)[0] == 2  # no picture, whoever made it
