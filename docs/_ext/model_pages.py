"""docs/models.md from the cards of the bundled weights: `python docs/_ext/model_pages.py` writes it."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "models.md"
HEAD = """\
# Bundled weights

<!-- Written by `python docs/_ext/model_pages.py` from the cards. Change a card, not this page. -->

"""
NONE = """\
**No weights are bundled with this version.** Every encoder that `capezoo list` shows is untrained until you give it
weights: a folder made by `capezoo publish`, or `hf-hub:ORG/REPO@COMMIT`. [The zoo](zoo.md) explains how.

Weights in `capezoo/zoo/weights/<encoder>.<tag>/` are found by name, included in the wheel, and described on this page.
"""


def page(bundled: Path) -> str:
    """The page for the weight folders below `bundled`."""
    from capezoo.zoo.files import CONFIG, read_card
    from capezoo.zoo.publish import render

    folders = [path for path in sorted(bundled.glob("*.*")) if (path / CONFIG).is_file()]
    if not folders:
        return HEAD + NONE
    rows = ["| Name | Parameters | Features | On disk | Licence |", "|---|---|---|---|---|"]
    sections = []
    for folder in folders:
        card = read_card(folder)
        megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        rows.append(f"| `{folder.name}` | {card.parameters:,} | {card.embedding_dim} | {megabytes:.1f} MB | "
                    f"{card.weights_licence} |")  # fmt: skip
        text = render(card, folder.name).partition("---\n# ")[2].partition("\n")[2]
        sections.append(f"## {folder.name}\n" + re.sub(r"^## ", "### ", text, flags=re.MULTILINE).rstrip())
    return HEAD + "\n".join(rows) + "\n\n" + "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from capezoo.zoo.listing import BUNDLED

    PAGE.write_text(page(BUNDLED), "utf-8")
