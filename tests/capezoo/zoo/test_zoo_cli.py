"""The commands around published weights, from a run to another machine without a network."""

import json
from pathlib import Path

import pytest

from capezoo.cli import program as cli
from capezoo.zoo import listing
from capezoo.zoo.files import WEIGHTS, read_header


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """run("pull", ...) -> (exit code, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(listing, "BUNDLED", tmp_path / "none")

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            cli.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_from_a_run_to_a_hub_to_a_folder(run, hub, run_folder, simulated):
    code, out, _ = run(
        "publish",
        run_folder,
        "hf-hub:org/tiny",
        "--digests",
        "plain",
        "--half",
        "--name",
        "tiny",
        "--summary",
        "Small.",
    )
    assert code == 0
    address = out.strip()
    assert address.startswith("hf-hub:org/tiny@")
    assert [path.name for path in Path().iterdir()] == []
    code, _, err = run("pull", address, "--to", "w", "--offline")
    assert (code, "not in the cache, and offline" in err) == (2, True)
    code, out, _ = run("pull", address, "--to", "w")
    assert (code, out.strip()) == (0, "w")
    assert read_header(Path("w", WEIGHTS)).is_half
    row = next(line for line in run("list")[1].splitlines() if address in line)
    assert "Small." in row
    assert address in run("list", "org/*")[1]
    assert address not in run("list", "cape*")[1]
    asked = len(hub.asked)
    assert run("verify", address, "--offline")[0] == run("verify", "w")[0] == 0
    assert json.loads(run("info", address, "--offline", "--json")[1])["half_cosine"] > 0.9999
    assert f'pretrained="{address}"' in run("info", address)[1]
    assert "trained on" in run("overlap", address, simulated / "store.zarr", "--offline")[1]
    code, out, _ = run("embed", address, simulated / "store.zarr", "-o", "e", "--offline")
    assert (code, len(out.splitlines())) == (0, 1)
    assert len(hub.asked) == asked


def test_wrong_input_gives_one_line(run, hub, run_folder):
    for arguments, words in (
        (
            ("publish", run_folder, "hf-hub:org/x@main", "--digests", "plain"),
            "expected hf-hub:ORG/REPO without revision",
        ),
        (("pull", "hf-hub:no/body@main", "--to", "w"), "the Hub refused or failed"),
        (("pull", "nobody", "--to", "w"), "found no weights 'nobody'"),
        (("pull", "nobody"), "found no --to, expected --to FOLDER"),
        (("overlap", "nobody", "s.zarr"), "s.zarr"),
    ):
        code, _, err = run(*arguments)
        assert (code, len(err.strip().splitlines())) == (2, 1), err
        assert words in err


def test_what_embedding_adapted_is_printed(run, run_folder, simulated):
    """Weights for leads in another order: taken by name, and said so."""
    import torch

    from capezoo import encoders
    from capezoo.specs import EncoderSpec, InputSpec, WeightCard
    from capezoo.zoo import write_weights
    from capezoo.zoo.publish import _resolved

    encoder = EncoderSpec(name="cape_resnet", config={"in_leads": 2, "widths": [4], "embedding_dim": 4, "kernel": 8})
    spec = InputSpec(leads=("III", "V1"))
    card = WeightCard(name="two", version="1", encoder=_resolved(encoder), input=spec, parameters=1, embedding_dim=4)
    with torch.no_grad():
        write_weights("w", encoders.build(encoder, seed=0), card)
    code, _, err = run("embed", "w", simulated / "store.zarr", "-o", "e")
    assert (code, "found no III among 8 leads" in err) == (2, True), err
    code, out, _ = run("embed", "w", simulated / "store.zarr", "-o", "e", "--missing-leads", "derive")
    assert code == 0
    assert out.splitlines()[1:] == ["  leads V1 taken by name", "  III derived from two limb leads"]


ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202etxt\r"


def test_no_code_of_a_card_reaches_the_terminal(run, run_folder, tmp_path, monkeypatch):
    """Wherever a card's words are printed: info, list, overlap, a refusal."""
    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    run(
        "publish",
        run_folder,
        "cache/cape_resnet.x",
        "--digests",
        "plain",
        "--name",
        f"n{ESCAPES}",
        "--summary",
        f"s{ESCAPES}",
    )
    for arguments in (("info", "cache/cape_resnet.x"), ("list",), ("verify", "cache/cape_resnet.x")):
        code, out, err = run(*arguments)
        assert code == 0
        assert not set(out + err) & set("\x1b\x07\x9b\x7f\u202e\r")
        assert r"\x1b" in out
    config = json.loads(Path("cache/cape_resnet.x/config.json").read_text()) | {f"k{ESCAPES}": 1}
    Path("cache/cape_resnet.x/config.json").write_text(json.dumps(config))
    code, _, err = run("onnx", "cache/cape_resnet.x", "-o", "o.onnx", "--unchecked")
    assert (code, len(err.splitlines()), "\x1b" in err) == (2, 1, False)


def test_a_broken_folder_in_the_cache_does_not_hide_the_others(run, run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    for name in ("whole", "card", "gone", "link"):
        run("publish", run_folder, f"cache/cape_resnet.{name}", "--digests", "plain")
    Path("cache/cape_resnet.card/card.json").write_text("{")
    Path("cache/cape_resnet.gone/card.json").unlink()
    Path("cache/cape_resnet.link/card.json").unlink()
    Path("cache/cape_resnet.link/card.json").symlink_to("/dev/zero")
    code, out, _ = run("list")
    assert code == 0
    rows = {line.split()[1]: line.split()[0] for line in out.splitlines() if "cape_resnet." in line}
    assert rows == {"cape_resnet.whole": "weights", **{f"cape_resnet.{n}": "damaged" for n in ("card", "gone", "link")}}
    told = json.loads(run("list", "--json")[1])
    assert [one["name"] for one in told["weights"]] == ["cape_resnet.whole"]
    assert "found no usable JSON" in told["damaged"]["cape_resnet.card"]
