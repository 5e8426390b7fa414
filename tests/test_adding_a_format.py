"""docs/adding_a_format.md is executed: its reader is installed as a package of its own, used, and attacked."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding_a_format.md"
SECONDS = 300


def files_on_the_page() -> dict[str, str]:
    """The python blocks by the file name in their first line."""
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages, with the reader, its writer and the metadata an installer would write."""
    folder = tmp_path_factory.mktemp("installed")
    for name, code in files_on_the_page().items():
        (folder / name).write_text(code, "utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    project = tomllib.loads(text)["project"]
    about = folder / f"{project['name']}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {module}" for name, module in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / "folder").mkdir()
    make = "import write_acme, pathlib; write_acme.write(pathlib.Path('folder'), seconds=8.0)"
    assert run(folder, "-c", make).returncode == 0
    return folder


def run(folder: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "ECGCOHORTS_WRITERS": str(folder),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd or folder, env=surroundings, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_the_page_has_the_files_it_speaks_of() -> None:
    assert list(files_on_the_page()) == ["acme.py", "write_acme.py", "use.py"]


def test_the_command_line_knows_the_format(installed: Path) -> None:
    formats = run(installed, "-m", "ecgcohorts.cli", "formats")
    assert re.search(r"^ *acme +\.acme +Acme carts", formats.stdout, re.MULTILINE), formats.stdout + formats.stderr
    inspected = run(installed, "-m", "ecgcohorts.cli", "inspect", "folder")
    assert re.search(r"format +1 +acme", inspected.stdout), inspected.stdout + inspected.stderr


def test_ec_read_reads_it(installed: Path) -> None:
    used = run(installed, "use.py")
    assert used.stdout.startswith("('I', 'II', 'III'"), used.stderr
    assert used.stdout.strip().endswith("500.0 8.0")
    check = (
        "import ecgcohorts as ec, numpy as np, pathlib, tempfile, write_acme\n"
        "path, (known,) = write_acme.write(pathlib.Path(tempfile.mkdtemp()), 8.0)\n"
        "np.testing.assert_array_equal(ec.read(path)[0].signal_mv, known['signal_mv'])\n"
    )
    assert run(installed, "-c", check).returncode == 0


def test_the_contract_and_the_attacks_run_on_it(installed: Path) -> None:
    tests = ("tests/contracts/test_readers.py", "tests/ecgcohorts/readers/test_bit_flips.py")
    contract = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", "acme", cwd=ROOT)
    assert contract.returncode == 0, contract.stdout
    assert int(re.findall(r"(\d+) passed", contract.stdout)[0]) >= 12
    fuzzed = run(installed, "tests/fuzz/fuzz.py", "acme", "--mutants", "1000", cwd=ROOT)
    assert fuzzed.returncode == 0, fuzzed.stdout + fuzzed.stderr
    cells = re.findall(r"^\| acme \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| 0 \|", fuzzed.stdout, re.MULTILINE)[0]
    mutants, refused, read = (int(cell.replace(",", "")) for cell in cells)
    assert (mutants, refused + read) == (1000, 1000)
    assert read > 50  # past the checksum, by `mend`


def test_the_code_on_the_page_is_formatted_like_all_code(installed: Path) -> None:
    files = [str(installed / name) for name in files_on_the_page()]
    config = ("--config", str(ROOT / "pyproject.toml"))
    for command in (("format", "--diff"), ("check", "--ignore", "I001")):  # I001: here ecgcohorts looks like a stranger
        checked = run(installed, "-m", "ruff", *command, *config, *files)
        assert checked.returncode == 0, checked.stdout + checked.stderr
