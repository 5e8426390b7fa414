"""docs/troubleshooting.md has a row for every reason of a refusal, and quotes messages that the code gives."""

import ast
import re
from pathlib import Path

import pytest

from ecgcohorts.errors import Reason
from ecgcohorts.ingest.commit import DUPLICATE
from ecgcohorts.ingest.plan import DUPLICATE_ID
from ecgcohorts.store.upkeep.lookup import REMOVED

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"


def rows(name: str) -> list[list[str]]:
    """The cells of a table between its two markers, without its head."""
    text = PAGE.read_text("utf-8")
    table = text.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    lines = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in table.strip().splitlines()]
    return lines[2:]


def texts(tree: ast.AST) -> list[str]:
    """Every text of a module, with … for what is put into it."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            found.append(node.value)
    return found


@pytest.fixture(scope="module")
def messages() -> list[str]:
    return [one for path in (ROOT / "ecgcohorts").rglob("*.py") for one in texts(ast.parse(path.read_text("utf-8")))]


def test_every_reason_has_its_row() -> None:
    found = rows("reasons")
    assert [row[0] for row in found] == [f"`{reason}`" for reason in (*Reason, DUPLICATE, DUPLICATE_ID, REMOVED)]
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in found)


@pytest.mark.parametrize("row", rows("messages"), ids=lambda row: row[1])
def test_every_message_is_one_of_ours(row: list[str], messages: list[str]) -> None:
    code, quoted, cause, remedy = row
    assert code in ("2", "3")
    assert cause
    assert remedy
    assert any(quoted.strip("`") in message for message in messages)
