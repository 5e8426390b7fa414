"""Every hostile weight folder is refused within a second and 256 MB above the same operation on a good one."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from capezoo import encoders
from capezoo.specs import EncoderSpec, InputSpec, WeightCard
from capezoo.zoo import write_weights
from capezoo.zoo.publish import _resolved

HERE = Path(__file__).parent
SECONDS, KIB = 1.0, 256 << 10


def _corpus():
    spec = importlib.util.spec_from_file_location("hostile_corpus", HERE / "corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


corpus = _corpus()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(case, operation) -> what came out; the good folder is the case ""."""
    place = tmp_path_factory.mktemp("hostile")
    encoder = EncoderSpec(name="cape_resnet", config={"widths": [4, 4], "embedding_dim": 6, "kernel": 8})
    card = WeightCard(name="tiny", version="1", encoder=_resolved(encoder), input=InputSpec(length=400), parameters=1,
                      embedding_dim=6)  # fmt: skip
    digests = place / "digests"
    digests.write_bytes(bytes(32))
    good = write_weights(place / "good", encoders.build(encoder, seed=3), card, digests)
    names = {"good": ""}
    for number, (name, (change, _)) in enumerate(corpus.CASES.items()):
        folder = shutil.copytree(good, place / f"case-{number}")
        change(folder)
        if not name.startswith(("sums", "SHA256SUMS")):
            corpus.resign(folder, card_too=not name.startswith("card"))
        names[folder.name] = name
    run = subprocess.run(
        [sys.executable, str(HERE / "measure.py"), *(str(place / folder) for folder in names)],
        capture_output=True, text=True, timeout=900, check=True,
    )  # fmt: skip
    assert not [path for path in place.iterdir() if path.name.endswith(".part")]
    assert {path.name for path in place.iterdir()} - set(names) <= {"digests", *(f"{n}.copy" for n in names)}
    told = [json.loads(line) for line in run.stdout.splitlines()]
    return {(names[one["folder"]], one["operation"]): one for one in told}


def test_the_good_folder_passes_everywhere(measured):
    assert {one["ended"] for (case, _), one in measured.items() if not case} == {"done"}


@pytest.mark.parametrize("case", corpus.CASES)
def test_a_hostile_folder_is_refused_at_little_cost(measured, case):
    for operation in ("load", "unchecked", "verify", "pull", "info"):
        found, good = measured[case, operation], measured["", operation]
        assert found["ended"].startswith(("refused: ", "done")), (operation, found)
        if operation in corpus.CASES[case][1]:
            assert found["ended"].startswith("refused: "), (operation, found)
        assert found["seconds"] < good["seconds"] + SECONDS, (operation, found)
        assert found["kib"] < good["kib"] + KIB, (operation, found)
        assert "\n" not in found["ended"]


def test_there_are_enough_of_them():
    assert len(corpus.CASES) >= 120
