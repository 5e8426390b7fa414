"""Every public encoder keeps the contract. Collected from the registry; an importer without a fixture fails.

A fixture is `tests/contracts/importers/<name>.py`. It has `PARAMETERS` and `ENTRIES` of the published file, a pattern
of its `BUFFERS`, `FEATURES` of its encoder, `published(narrow)`, which makes tensors under the public names with random numbers, at the published size or a
narrow one, and `features(tensors, x)`, the forward pass written out on these names: (record, lead, time) in float64.
"""

import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import capezoo
from capezoo.encoders import build
from capezoo.zoo.files import CARD, LICENCE
from capezoo.zoo.importers import import_weights, public_model
from ecgcohorts import plugins
from ecgcohorts.errors import SourceError, SpecError

NAMES = plugins.names("capezoo.zoo.importers")
FIXTURES = Path(__file__).parent / "importers"
PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"


class Foreign:
    """Stands for what checkpoints hold beside tensors. Read by torch or pickle it would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch it-ran",)


def fixture_of(name: str) -> ModuleType:
    path = FIXTURES / f"{name}.py"
    assert path.is_file(), f"the importer {name} brings no fixture: write {path.name}"
    spec = importlib.util.spec_from_file_location(f"importer_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published(name: str, narrow: bool = True) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return fixture_of(name).published(narrow)


def write(name: str, tensors: dict[str, Tensor], path: Path) -> Path:
    """Put tensors where the public file has them, beside what its training left there."""
    tree: Any = tensors
    for place, key in enumerate(reversed(public_model(name).inside)):
        tree = {key: tree} | ({} if place else {"epoch": 3, "best": np.float64(0.9), "config": Foreign()})
    torch.save(tree, path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_importer_has_a_fixture_and_every_fixture_an_importer() -> None:
    assert {path.stem for path in FIXTURES.glob("*.py")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_counts_of_the_published_file_are_those_of_our_encoder(name: str) -> None:
    fixture, public = fixture_of(name), public_model(name)
    tensors = published(name, narrow=False)
    assert len(tensors) == fixture.ENTRIES
    trained = [tensor.numel() for key, tensor in tensors.items() if not re.fullmatch(fixture.BUFFERS, key)]
    assert sum(trained) == fixture.PARAMETERS
    kept = {key: tensor for key, tensor in tensors.items() if public.keeps(key)}
    encoder, spec = public.describe(kept)
    with torch.device("meta"):
        model = build(encoder, seed=0)
    found = {key: tuple(tensor.shape) for key, tensor in public.ours(kept).items()}
    assert found == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert model.num_features == fixture.FEATURES
    assert len(spec.leads) == encoder.config["in_leads"]


@pytest.mark.parametrize("name", NAMES)
def test_imported_weights_give_the_features_of_the_public_network(name: str, here: Path) -> None:
    tensors = published(name)
    folder = import_weights(name, write(name, tensors, here / "public.pth"), here / "weights")
    assert not (here / "it-ran").exists()
    model = capezoo.create_model(json.loads((folder / CARD).read_text())["encoder"]["name"], pretrained=folder)
    spec = model.spec
    x = torch.randn(3, len(spec.leads), spec.length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = fixture_of(name).features({key: t.double() for key, t in tensors.items()}, x)
    with torch.no_grad():
        found = model(x.float()).double()
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert (wanted.std(dim=0) > 0).double().mean() > 0.5  # they tell records apart; some may be below a last ReLU
    report = capezoo.verify(folder)
    assert report.ok, report.problems
    assert report.golden_difference < 1e-6


def test_features_of_the_public_program_are_held_against_it(here: Path) -> None:
    name = "merl_resnet18"
    tensors = published(name)
    file = write(name, tensors, here / "public.pth")
    x = torch.randn(2, 12, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = fixture_of(name).features({key: t.double() for key, t in tensors.items()}, x).numpy()
    for path, features in (("same.npz", wanted), ("other.npz", wanted * 1.001), ("shape.npz", wanted[:, :3])):
        np.savez(here / path, signal=x.numpy(), features=features)
    assert import_weights(name, file, here / "weights", against=here / "same.npz").is_dir()
    for path, sentence in (
        ("other.npz", "the features differ by 1.0e-03 of the largest, expected at most 1e-04"),
        ("shape.npz", r"found features of shape \(2, 3\), expected \(2, 32\)"),
        ("public.pth", "expected an .npz with `signal`"),
    ):
        with pytest.raises((SpecError, SourceError), match=sentence):
            import_weights(name, file, here / "elsewhere", against=here / path)
    assert not (here / "elsewhere").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_says_whose_weights_they_are_and_what_to_know_of_them(name: str, here: Path) -> None:
    public = public_model(name)
    folder = import_weights(name, write(name, published(name), here / "public.pth"), here / "weights")
    card = json.loads((folder / CARD).read_text())
    assert card["weights_licence"] == public.licence
    assert card["known_failures"] == list(public.known_failures)
    assert public.source in card["summary"]
    assert re.search(r"SHA-256 [0-9a-f]{64}\.", card["summary"])
    licence = (folder / LICENCE).read_text()
    assert public.source in licence
    assert "Apache" not in licence
    for text in (public.title, public.source, public.where, public.licence):
        assert text


@pytest.mark.parametrize("name", NAMES)
def test_one_recording_goes_from_raw_samples_to_features(name: str, here: Path) -> None:
    folder = import_weights(name, write(name, published(name), here / "public.pth"), here / "weights")
    model = capezoo.load(folder)
    time_s = np.arange(12 * 400) / 400
    beats = np.exp(-(((time_s % 0.8) - 0.3) ** 2) / (2 * 0.015**2))  # one R wave every 0.8 s
    x = beats * np.linspace(0.5, 1.5, len(model.spec.leads))[:, None]
    given = {"rate_hz": 400, "leads": model.spec.leads, "unit": "mV"}
    if model.spec.normalisation == "cohort_lead_z":  # an array is of no cohort
        with pytest.raises(SpecError, match="expected a store: weights of cohort_lead_z"):
            capezoo.embed(model, x[None], **given)
        return
    found = capezoo.embed(model, np.stack([x, 1.2 * x]), **given)
    assert found.shape == (2, model.num_features)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stays_random_and_nothing_is_left_over(name: str, here: Path) -> None:
    tensors, public = published(name), public_model(name)
    key = next(reversed([key for key, tensor in tensors.items() if public.keeps(key) and tensor.ndim]))
    damaged = {
        "lacks": {k: t for k, t in tensors.items() if k != key},
        "more": tensors | {f"{key}.more": torch.zeros(3)},
        "shape": tensors | {key: torch.cat([tensors[key], tensors[key]])},
    }
    for kind, state in damaged.items():
        path = write(name, state, here / f"{kind}.pth")
        with pytest.raises(SpecError, match=rf"found .* expected .*weights of {re.escape(public.title)}") as error:
            import_weights(name, path, here / "weights")
        assert public.where in str(error.value)
    path = write(name, tensors | {key: tensors[key] * torch.nan}, here / "nan.pth")
    with pytest.raises(SourceError, match="found NaN or infinity in tensor"):
        import_weights(name, path, here / "weights")
    assert not (here / "weights").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_another_model_is_refused(name: str, here: Path) -> None:
    path = here / "other.pth"
    torch.save(
        {"state_dict": {"weight": torch.zeros(2, 3)}, "model": {"weight": torch.zeros(2)}, "w": torch.ones(1)}, path
    )
    with pytest.raises((SpecError, SourceError), match=r"found .* expected"):
        import_weights(name, path, here / "weights")
    assert not (here / "weights").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_the_zoo_has_a_row_for_it(name: str) -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `{name}` | ")]
    assert len(rows) == 1
    assert f" | {public_model(name).licence} | " in rows[0]


def test_a_folder_that_is_there_is_not_replaced(here: Path) -> None:
    (here / "weights").mkdir()
    with pytest.raises(SpecError, match="found something there, expected a new folder"):
        import_weights(NAMES[0], here / "nothing.pth", here / "weights")
    with pytest.raises(SourceError, match="no such file"):
        import_weights(NAMES[0], here / "nothing.pth", here / "other")
