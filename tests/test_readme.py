"""README and docs are run: every python block, in order, as one script per document; every YAML block is a cohort.

A block opts out with a comment directly before it: `<!-- not run: reason -->`.
Scripts start in a folder with a small simulated `raw/` (north, river, coast), the `store.zarr` made of it, and
`any_ecg_file`, a copy of one of the recordings.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.preprocess.recipes import Recipe

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: .+? -->\n+)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(r"^\$ (?:.*&& )?(ecgcohorts|capezoo) (\w+)", re.MULTILINE)
SECONDS = 300


def blocks(document: Path, language: str) -> list[tuple[int, str]]:
    """(line number, code) of all blocks of a language that have not opted out."""
    text = document.read_text("utf-8")
    found = []
    for match in BLOCK.finditer(text):
        if match["language"] == language and not match["skip"]:
            found.append((text[: match.start("code")].count("\n") + 1, match["code"]))
    return found


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_PYTHON = [document for document in DOCUMENTS if blocks(document, "python")]
YAML_BLOCKS = [(document, line, code) for document in DOCUMENTS for line, code in blocks(document, "yaml")]


def script_of(document: Path) -> str:
    """All python blocks, each on the lines where the document has it: a traceback then names the document's line."""
    lines: list[str] = []
    for line, code in blocks(document, "python"):
        lines += [""] * (line - 1 - len(lines))
        lines += code.splitlines()
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw/` and `store.zarr`, and a configuration folder of its own for the pseudonym key."""
    from ecgcohorts.ingest import IngestOptions, ingest
    from ecgcohorts.simulate import simulate

    folder = tmp_path_factory.mktemp("documents")
    (folder / "key").write_text(bytes(range(32)).hex(), "ascii")
    (folder / "key").chmod(0o600)
    simulate(folder / "raw", patients_per_cohort=10, seed=0)
    for cohort in ("north", "river", "coast"):
        source = folder / "raw" / cohort
        ingest(source, folder / "store.zarr", str(source / "cohort.yaml"), IngestOptions(key_file=folder / "key"))
    shutil.copy(next((folder / "raw" / "river").rglob("*.xml")), folder / "any_ecg_file")
    return folder


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run(document, workplace, tmp_path):
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    script = tmp_path / document.with_suffix(".py").name
    script.write_text(script_of(document), "utf-8")
    surroundings = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "2",
    }
    run = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=SECONDS
    )
    assert run.returncode == 0, f"{document}:\n{run.stderr}"


@pytest.mark.parametrize(
    ("document", "line", "code"), YAML_BLOCKS, ids=[f"{path.name}-{line}" for path, line, _ in YAML_BLOCKS]
)
def test_yaml_blocks_are_cohorts_recipes_or_plans(document, line, code, tmp_path):
    content = yaml.safe_load(code)
    if "studies" in content:
        from capezoo.evaluate.plan import Plan

        (tmp_path / "plan.yaml").write_text(code)
        assert Plan.read(tmp_path / "plan.yaml").title
    else:
        assert (Recipe if "steps" in content else CohortSpec).model_validate(content).name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_shown_are_commands(document, capsys):
    shown = {match for _, code in blocks(document, "console") for match in COMMAND.findall(code)}
    for program, command in shown:
        main = import_module(f"{program}.cli.program").main
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert not end.value.code, f"{program} {command}: {capsys.readouterr().err}"


def test_links_within_the_repository_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
