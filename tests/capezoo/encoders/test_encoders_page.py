"""The numbers of docs/encoders.md, computed anew: parameters, operations, features and reduction of every row."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import capezoo

PAGE = Path(__file__).parents[3] / "docs" / "encoders.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\{.*\})` \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d.]+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text("utf-8"))


def test_every_encoder_has_a_row_and_a_source() -> None:
    assert {row[0] for row in ROWS} == set(capezoo.list_models())
    for name in capezoo.list_models():
        assert f"| `{name}` | " in PAGE.read_text("utf-8").partition("| Encoder | Source |")[2]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
def test_numbers_are_those_of_the_network(row: tuple[str, ...]) -> None:
    name, settings, features, samples, parameters, gflop = row
    with torch.device("meta"):  # shapes are enough
        model = capezoo.create_model(name, config=json.loads(settings)).eval()
        model(torch.zeros(1, 8, 2800))  # what is made once for a length is no part of a pass
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 8, 2800))
    assert f"{sum(p.numel() for p in model.parameters()):,}" == parameters
    assert f"{counter.get_total_flops() / 1e9:.2f}" == gflop
    assert (model.num_features, model.feature_info[-1]["reduction"]) == (int(features), int(samples))
