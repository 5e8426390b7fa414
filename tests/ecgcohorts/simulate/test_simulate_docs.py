"""docs/simulate.md states the truth that the simulator draws from."""

from dataclasses import fields
from pathlib import Path

from ecgcohorts.simulate import HOSPITALS, TRAITS
from ecgcohorts.simulate.devices import DeviceSignature

PAGE = Path(__file__).parents[3] / "docs" / "simulate.md"


def table_rows() -> dict[str, list[str]]:
    """Cells of every table row of the page, by the first cell."""
    rows = [line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def test_the_table_of_effects_is_the_table_in_the_code() -> None:
    rows = table_rows()
    for trait in TRAITS:
        numbers = (
            trait.men,
            trait.women,
            trait.men_per_year,
            trait.women_per_year,
            trait.between_sd,
            trait.within_sd,
            trait.autonomic,
        )
        assert rows[trait.name] == [trait.unit, *(f"{number:g}" for number in numbers), trait.source]


def test_the_table_of_recorders_is_what_records() -> None:
    rows = table_rows()
    for field in fields(DeviceSignature):
        if field.name != "name":
            assert rows[field.name] == [f"{getattr(h.device, field.name):g}" for h in HOSPITALS.values()]
