"""A weight folder: what is in it, that it is the same twice, and that every change to it is found."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import capezoo
from capezoo.embedding.folder import weights_digest
from capezoo.specs import CohortUse, InputSpec, Metric, RunConfig, Training, WeightCard
from capezoo.zoo import locate, verify, write_weights
from capezoo.zoo.files import (
    CARD,
    CONFIG,
    DIGESTS,
    GOLDEN,
    LICENCE,
    README,
    REQUIRED,
    SUMS,
    WEIGHTS,
    read_card,
    read_header,
)
from capezoo.zoo.golden import GoldenOutput, _signal
from capezoo.zoo.publish import halved, render
from ecgcohorts.errors import SpecError
from ecgcohorts.io.durable import sha256_of


def tiny_card(folder: Path) -> WeightCard:
    """The card of a folder before it was published."""
    return read_card(folder).model_copy(update={"sha256": {}, "golden": None})


def full_card(card: WeightCard) -> WeightCard:
    training = Training(
        run=RunConfig(name="cape_z", seed=1),
        cohorts=(CohortUse(name="north", patients=1200, records=3400, licence="CC0-1.0"),),
        store_fingerprint="ab" * 32,
        steps=500,
        command="capezoo pretrain",
    )
    metric = Metric(name="age_mae_years", cohort="south", value=9.5, low=9.0, high=10.0, n=100, method="ood")
    return card.model_copy(update={"training": training, "metrics": (metric,), "known_failures": ("paced rhythm",)})


def test_a_published_folder_is_whole(folder):
    assert {path.name for path in folder.iterdir()} == {*REQUIRED, DIGESTS}
    report = verify(folder)
    assert report.ok, report.problems
    assert report.golden_difference < 1e-6
    card = read_card(folder)
    assert WeightCard.model_validate_json(card.model_dump_json()) == card
    assert card.sha256[WEIGHTS] == sha256_of(folder / WEIGHTS)
    assert "Apache License" in (folder / LICENCE).read_text()
    assert not [path for path in folder.parent.iterdir() if path.name.endswith(".part")]


def test_publishing_twice_gives_the_same_bytes(folder, tiny, tmp_path):
    again = write_weights(tmp_path / "again", tiny, tiny_card(folder), folder / DIGESTS)
    for name in (*REQUIRED, DIGESTS):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_publishing_over_something_is_refused(folder, tiny):
    with pytest.raises(SpecError, match="found something there, expected a new folder"):
        write_weights(folder, tiny, read_card(folder))


def test_a_failed_publish_leaves_nothing(tiny, folder, tmp_path, monkeypatch):
    from capezoo.zoo import publish as module  # the function: the module is behind it

    def fail(card, where):
        raise OSError("disk full")

    monkeypatch.setitem(module.__globals__, "render", fail)
    with pytest.raises(OSError, match="disk full"):
        write_weights(tmp_path / "new", tiny, read_card(folder))
    assert not [path.name for path in tmp_path.iterdir() if "new" in path.name]


def test_every_flipped_byte_and_every_missing_file_is_found(folder, tmp_path):
    rng = np.random.default_rng(0)
    for name in (*REQUIRED, DIGESTS):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        data = bytearray((copy / name).read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (copy / name).write_bytes(bytes(data))
        assert not verify(copy).ok, name
        if name != CONFIG:  # without it the folder holds no weights at all
            (copy / name).unlink()
            assert not verify(copy).ok, name
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["weights.pt", "model.bin", "tokenizer.pkl", "run.py"])
def test_only_known_files_are_accepted(folder, name):
    (folder / name).write_bytes(b"\x80\x04.")
    assert verify(folder).problems == (f"{name}: unexpected file, and never read. Remove it.",)


def test_weights_that_compute_something_else_fail_the_golden_output(folder, resign):
    data = bytearray((folder / WEIGHTS).read_bytes())
    values = np.frombuffer(data[-4000:], "<f4").copy()
    data[-4000:] = (values * 1.01).astype("<f4").tobytes()
    (folder / WEIGHTS).write_bytes(bytes(data))
    resign(folder, WEIGHTS)
    (problem,) = verify(folder).problems
    assert re.match(r"golden.npz: the output differs by .* of its largest value, expected at most 1e-04", problem)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"signal_uv": np.zeros((1, 8, 400), np.int16)}, "embedding"),
        ({"signal_uv": np.zeros((1, 8, 401), np.int16), "embedding": np.zeros((1, 6), "f4")}, "signal_uv int16"),
        (
            {"signal_uv": np.zeros((1, 8, 400), np.int16), "embedding": np.full((1, 6), np.nan, "f4")},
            "embedding float32",
        ),
        ({"signal_uv": np.array([{}]), "embedding": np.zeros((1, 6), "f4")}, "Object arrays"),
    ],
)
def test_a_golden_file_of_another_kind_is_refused(folder, arrays, message, resign):
    np.savez(folder / GOLDEN, **arrays)
    resign(folder, GOLDEN)
    (problem,) = verify(folder).problems
    assert message in problem
    np.savez_compressed(folder / GOLDEN, signal_uv=np.zeros((1, 8, 400), np.int16))
    resign(folder, GOLDEN)
    assert "compressed entries" in verify(folder).problems[0]


def test_the_golden_output_is_asked_of_the_device_that_is_named(folder, monkeypatch, paper_gpu):
    paper_gpu.install(monkeypatch)
    with paper_gpu:
        assert verify(folder, device="cuda").ok
        assert paper_gpu.asked["pinned"] == 1
        assert verify(folder).ok  # on the CPU, where weights are published
        assert paper_gpu.asked["pinned"] == 1


def test_a_card_of_other_weights_is_found(folder, resign):
    card = json.loads((folder / CARD).read_text())
    card["input"]["rate_hz"] = 500.0
    (folder / CARD).write_text(json.dumps(card))
    resign(folder)
    assert verify(folder).problems == ("card.json: architecture or input differs from config.json.",)


def test_a_path_in_the_sums_is_refused(folder):
    with (folder / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  ../secret\n")
    assert "expected `sha256  file`" in verify(folder).problems[0]


def test_the_golden_signal_is_an_ecg_like_signal_of_its_own_per_lead():
    signal = _signal(InputSpec())
    assert signal.shape == (4, 8, 2800)
    assert 300 < np.abs(signal).max() < 4000
    assert len({row.tobytes() for row in signal.reshape(32, -1)}) == 32


def test_the_readme_says_what_the_card_says(folder):
    text = render(full_card(read_card(folder)))
    assert text.startswith('---\nlicense: "apache-2.0"\n')
    assert "| leads, in order | I II V1 V2 V3 V4 V5 V6 |" in text
    assert "| north | 1,200 | 3,400 | CC0-1.0 |" in text
    assert "| age_mae_years | south | 9.5 | 9 to 10 | 100 | ood |" in text
    assert "- paced rhythm" in text
    assert "\n\n\n" not in text
    assert (folder / README).read_text() == render(read_card(folder))


def test_a_bar_in_a_name_cannot_break_the_table(folder):
    card = read_card(folder)
    metric = Metric(name="a|b", cohort="x\n# y", value=1.0)
    text = render(card.model_copy(update={"metrics": (metric,)}))
    assert "| a\\|b | x # y | 1 |" in text


@pytest.mark.parametrize(
    "words",
    ["[read this](javascript:alert(1))", "![x](javascript:alert(1))", r"\[a](javascript:alert(1))", "<javascript:alert(1)>",
     "[a][b]\n\n[b]: javascript:alert(1)", "`x` <a href='javascript:alert(1)'>a</a>", "x | y\n# z"],
)  # fmt: skip
def test_no_text_of_a_card_becomes_a_link_or_a_tag(folder, words):
    """Read by the renderer of our own pages, with tables on, as a Hub has them."""
    markdown_it = pytest.importorskip("markdown_it")
    card = full_card(read_card(folder))
    metric = Metric(name=words, cohort=words, value=1.0, method=words)
    text = {"name": words, "summary": words, "intended_use": words, "weights_licence": words, "metrics": (metric,)}
    training = card.training.model_copy(update={"command": words, "commit": words})
    card = card.model_copy(update={**text, "known_failures": (words,), "training": training})
    body = render(card, where=words).partition("---\n# ")[2]
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(body)
    assert "<a " not in html
    assert "<img" not in html
    assert "javascript:alert(1)" in html or "javascript" not in words  # it is there, as text
    assert html.count("<table>") == 3
    assert (html.count("<h1>"), html.count("<h2>")) == (0, 4)  # its name went with the front matter


def test_verify_refuses_what_is_not_there():
    with pytest.raises(SpecError, match="found no weights 'nobody'"):
        locate("nobody")


def test_half_precision_on_disk_is_full_precision_in_memory(tiny, folder, tmp_path):
    half = write_weights(tmp_path / "half", tiny, tiny_card(folder), half=True)
    header = read_header(half / WEIGHTS)
    assert header.is_half
    assert not read_header(folder / WEIGHTS).is_half
    assert {dtype for dtype, _ in header.tensors.values()} == {"F16", "I64"}
    sizes = [(one / WEIGHTS).stat().st_size for one in (half, folder)]
    assert sizes[0] < 0.8 * sizes[1]  # the rest is the header
    report = verify(half)
    assert report.ok, report.problems
    assert report.golden_difference < 1e-6
    card = read_card(half)
    assert 0.9999 < card.half_cosine <= 1.0
    assert read_card(folder).half_cosine is None
    loaded = capezoo.load(half)
    assert {tensor.dtype for tensor in loaded.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert weights_digest(loaded) == weights_digest(halved(tiny)) != weights_digest(tiny)
    one, two = (GoldenOutput.of(model, card.input).embedding for model in (loaded, tiny))
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert cosine.min() == pytest.approx(card.half_cosine, abs=1e-6)
    assert "Stored in half precision: embeddings of the golden signals keep a cosine" in (half / README).read_text()


@pytest.mark.parametrize("value", [1e6, 1e-9, float("nan")])
def test_weights_that_half_precision_cannot_hold_are_refused(tiny, folder, tmp_path, value):
    """Too large, too small, and no number at all."""
    with torch.no_grad():
        tiny.stem.weight.fill_(value) if value != value else tiny.stem.weight.mul_(value)
        for name, buffer in tiny.named_buffers():
            if name.endswith("running_var") and value < 1:
                buffer.mul_(value**2)
    with pytest.raises(SpecError, match=r"found embeddings that differ in half precision .*Publish without half"):
        write_weights(tmp_path / "half", tiny, tiny_card(folder), half=True)
    assert not (tmp_path / "half").exists()


def test_a_card_that_hides_half_precision_is_found(tiny, folder, tmp_path, resign):
    half = write_weights(tmp_path / "half", tiny, tiny_card(folder), half=True)
    card = json.loads((half / CARD).read_text()) | {"half_cosine": None}
    (half / CARD).write_text(json.dumps(card))
    resign(half)
    assert verify(half).problems == ("card.json: precision differs from model.safetensors.",)


def test_the_example_of_a_card_runs(folder, tmp_path):
    """What stands in a README is what a newcomer copies."""
    text = (folder / README).read_text()
    code = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    names = {}
    exec(code.replace("THIS_FOLDER", str(folder)), names)
    assert names["embedding"].shape == (1, 6)


@pytest.mark.parametrize("kind", ["window_z", "record_lead_z", "min_max"])
def test_the_golden_output_is_scaled_as_the_contract_says(folder, tiny, tmp_path, kind):
    card = tiny_card(folder)
    asks = card.model_copy(update={"input": card.input.model_copy(update={"normalisation": kind})})
    scaled = write_weights(tmp_path / kind, tiny, asks)
    assert verify(scaled).ok
    with np.load(scaled / "golden.npz") as one, np.load(folder / "golden.npz") as other:
        np.testing.assert_array_equal(one["signal_uv"], other["signal_uv"])
        assert not np.allclose(one["embedding"], other["embedding"], rtol=0.01)
