"""Weights inside the package: found by name, in the wheel, small, whole, and on a page of the documentation."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import capezoo
from capezoo.zoo import listing, verify, write_weights
from capezoo.zoo.files import CARD, README, WEIGHTS, read_card

ROOT = Path(__file__).parents[3]
LIMIT = 15_000_000  # bytes of one bundled set, so that the wheel stays a download of seconds


@pytest.fixture
def bundle(folder, tiny, tmp_path, monkeypatch) -> Path:
    """A folder of bundled weights with one tiny set, stored in half precision."""
    card = read_card(folder).model_copy(update={"sha256": {}, "golden": None})
    write_weights(tmp_path / "bundle" / "cape_resnet.tiny", tiny, card, half=True)
    monkeypatch.setattr(listing, "BUNDLED", tmp_path / "bundle")
    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "bundle"


def what_is_wrong_with(bundle: Path) -> list[str]:
    """Everything that would keep a set of weights out of the package."""
    problems = []
    for folder in sorted(bundle.iterdir()) if bundle.is_dir() else ():
        encoder, _, tag = folder.name.partition(".")
        report = verify(folder)
        problems += [f"{folder.name}: {problem}" for problem in report.problems]
        if report.ok and (read_card(folder).encoder.name != encoder or not tag):
            problems.append(f"{folder.name}: not ENCODER.TAG")
        if sum(path.stat().st_size for path in folder.iterdir()) > LIMIT:
            problems.append(f"{folder.name}: more than {LIMIT} bytes")
    return problems


def model_pages():
    spec = importlib.util.spec_from_file_location("model_pages", ROOT / "docs" / "_ext" / "model_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_bundled_may_be():
    assert what_is_wrong_with(listing.BUNDLED) == []


def test_what_may_not_be_bundled_is_found(bundle):
    assert what_is_wrong_with(bundle) == []
    shutil.copytree(bundle / "cape_resnet.tiny", bundle / "vit1d.tiny")
    shutil.copytree(bundle / "cape_resnet.tiny", bundle / "cape_resnet.damaged")
    (bundle / "cape_resnet.damaged" / README).write_text("other")
    shutil.copytree(bundle / "cape_resnet.tiny", bundle / "cape_resnet.large")
    (bundle / "cape_resnet.large" / WEIGHTS).write_bytes(bytes(LIMIT))
    found = "\n".join(what_is_wrong_with(bundle))
    for words in ("vit1d.tiny: not ENCODER.TAG", "damaged: README.md: sha256", "large: more than 15000000 bytes"):
        assert words in found


def test_bundled_weights_load_by_name(bundle):
    assert capezoo.list_models(pretrained=True) == ["cape_resnet.tiny"]
    model = capezoo.create_model("cape_resnet", pretrained=True)
    assert model.num_features == 6
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}


def test_bundled_weights_are_in_the_wheel_and_load_from_it(bundle, tmp_path):
    """Built from a copy with one set added; nothing else has to be changed to bundle it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    for package in ("capezoo", "ecgcohorts"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(bundle / "cape_resnet.tiny", copy / "capezoo" / "zoo" / "weights" / "cape_resnet.tiny")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    made = subprocess.run(build, cwd=copy, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    (wheel,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = "import capezoo; print(capezoo.__file__, capezoo.create_model('cape_resnet.tiny', pretrained=True).num_features)"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(tmp_path / "installed" / "capezoo" / "__init__.py"), "6"]


def test_the_page_is_what_the_cards_say():
    pages = model_pages()
    assert pages.PAGE.read_text("utf-8") == pages.page(listing.BUNDLED), "run: python docs/_ext/model_pages.py"


def test_a_page_has_a_section_and_a_row_for_every_set(bundle):
    pages = model_pages()
    text = pages.page(bundle)
    assert "| `cape_resnet.tiny` | 1 | 6 | 0.0 MB | Apache-2.0 |" in text
    assert "## cape_resnet.tiny\n" in text
    assert 'pretrained="cape_resnet.tiny"' in text
    assert "### Input it needs" in text
    assert "THIS_FOLDER" not in text
    assert "No weights are bundled" not in text
    card = bundle / "cape_resnet.tiny" / CARD
    card.write_text(card.read_text().replace('"parameters": 1,', '"parameters": 1234567,'))
    assert "| 1,234,567 |" in pages.page(bundle)
    assert "No weights are bundled with this version" in pages.page(bundle / "nothing")
