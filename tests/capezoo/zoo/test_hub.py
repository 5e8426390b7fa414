"""Weights from and to a Hub: the same weights come back, nothing half-fetched or hostile ever loads."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

import capezoo
from capezoo.embedding.folder import weights_digest
from capezoo.zoo import publish_to_hub, pull, verify
from capezoo.zoo.files import CARD, DIGESTS, GOLDEN, README, REQUIRED, SUMS, WEIGHTS
from capezoo.zoo.hub import cached, fetch, push
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.io.durable import sha256_of

NAME = "org/tiny"


def tree_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def no_weights_anywhere(cache: Path) -> bool:
    return not cached() and not [path for path in cache.glob("hub/*/*") if re.fullmatch("[0-9a-f]{40}", path.name)]


def sums_of(tree: dict[str, bytes]) -> bytes:
    import hashlib

    names = sorted(name for name in tree if name != SUMS)
    return "".join(f"{hashlib.sha256(tree[name]).hexdigest()}  {name}\n" for name in names).encode()


def test_published_weights_come_back_by_the_same_line(hub, folder, tiny, tmp_path):
    address = push(folder, f"hf-hub:{NAME}", "tiny 1")
    assert re.fullmatch(rf"hf-hub:{NAME}@[0-9a-f]{{40}}", address)
    assert hub.repos[NAME].private
    model = capezoo.create_model("cape_resnet", pretrained=address)
    assert weights_digest(model) == weights_digest(tiny)
    assert capezoo.create_model("cape_resnet", pretrained=folder).spec == model.spec
    assert verify(address).ok
    assert cached() == [address]
    asked = len(hub.asked)
    capezoo.load(address)  # a commit that is in the cache is not asked for
    assert len(hub.asked) == asked
    copy = pull(address, tmp_path / "mine" / "copy")
    assert tree_of(copy) == tree_of(folder)
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy"]


def test_a_run_is_published_to_a_hub_and_again(hub, run_folder, folder):
    hub.add(NAME, {".gitattributes": b"", "old.txt": b"old", DIGESTS: b"0" * 16})
    first = publish_to_hub(run_folder, f"hf-hub:{NAME}", digests="plain")
    assert set(hub.repos[NAME].tree("main")[1]) == {".gitattributes", *REQUIRED, DIGESTS}
    assert verify(first).ok
    assert f'pretrained="hf-hub:{NAME}@COMMIT"' in hub.repos[NAME].tree("main")[1][README].decode()
    (folder / DIGESTS).unlink()
    second = push(folder, f"hf-hub:{NAME}", "without digests")
    assert DIGESTS not in hub.repos[NAME].tree("main")[1]
    assert DIGESTS in hub.repos[NAME].commits[first.partition("@")[2]]
    assert second != first


def test_a_branch_is_asked_for_every_time_and_known_offline(hub, folder, monkeypatch):
    first = hub.add(NAME, tree_of(folder))
    address = f"hf-hub:{NAME}@main"
    with pytest.raises(SourceError, match="the Hub was never asked for this revision, and this is offline"):
        fetch(address, offline=True)
    assert fetch(address).name == first
    second = hub.add(NAME, tree_of(folder) | {".gitattributes": b"x"})
    assert fetch(address, offline=True).name == first
    asked = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(address).name == first
    with pytest.raises(SourceError, match=rf"@{second}: not in the cache, and offline.*capezoo pull hf-hub:{NAME}"):
        capezoo.load(f"hf-hub:{NAME}@{second}")
    assert len(hub.asked) == asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert fetch(address).name == second


def test_a_connection_that_is_cut_is_taken_up_within_the_file(hub, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # bytes written at a time: else 10 MB
    commit = hub.add(NAME, tree_of(folder))
    hub.cut[WEIGHTS] = 3500
    assert verify(f"hf-hub:{NAME}@{commit}").ok
    assert [asked.rstrip("-") for asked in hub.ranges] == ["bytes=3000"]


def test_an_interrupted_download_loads_nowhere_and_goes_on(hub, folder, tmp_path, monkeypatch):
    """The connection is cut before anything of the weights was written, and huggingface_hub gives up at once."""
    from huggingface_hub import file_download

    before = capezoo.list_models(pretrained=True)
    commit = hub.add(NAME, tree_of(folder))
    hub.cut[WEIGHTS] = 3500
    http_get = file_download.http_get
    monkeypatch.setattr(file_download, "http_get", lambda *a, **k: http_get(*a, **k | {"_nb_retries": 0}))
    address = f"hf-hub:{NAME}@{commit}"
    with pytest.raises(SourceError, match=f"{address}: the Hub refused or failed"):
        capezoo.load(address)
    assert no_weights_anywhere(tmp_path / "cache")
    assert capezoo.list_models(pretrained=True) == before
    with pytest.raises(SourceError, match="not in the cache, and offline"):
        fetch(address, offline=True)
    hub.asked.clear()
    assert verify(address).ok
    fetched = [line for line in hub.asked if line.startswith("GET /org/tiny/resolve")]
    assert len(fetched) == len(set(fetched)) < len(tree_of(folder))  # whole files that had come were kept


def test_a_killed_pull_leaves_nothing_that_loads(hub, folder, tmp_path):
    """As users start it: the process is killed while the weights come, and the same command then finishes."""
    commit = hub.add(NAME, tree_of(folder))
    hub.cut[WEIGHTS] = 1000
    script = (
        "import os, huggingface_hub.file_download as f; get = f.http_get\n"
        "def die(*a, **k):\n    try: get(*a, **k | {'_nb_retries': 0})\n    except Exception: os._exit(9)\n"
        "f.http_get = die\nfrom capezoo.cli import program as cli; cli.main()"
    )
    command = ["pull", f"hf-hub:{NAME}@{commit}", "--to", str(tmp_path / "to")]
    killed = subprocess.run([sys.executable, "-c", script, *command], env=os.environ, timeout=120)
    assert killed.returncode == 9
    assert not (tmp_path / "to").exists()
    assert no_weights_anywhere(tmp_path / "cache")
    with pytest.raises(SourceError, match="not in the cache, and offline"):
        fetch(f"hf-hub:{NAME}@{commit}", offline=True)
    done = subprocess.run([sys.executable, "-m", "capezoo.cli", *command], env=os.environ, timeout=120)
    assert done.returncode == 0
    assert verify(tmp_path / "to").ok


def changed(tree: dict[str, bytes], **files: bytes) -> dict[str, bytes]:
    """The tree with other files, and sums that agree."""
    new = tree | {name.replace("__", "."): data for name, data in files.items()}
    return new | {SUMS: sums_of(new)}


GIANT = (2 << 20).to_bytes(8, "little") + b"{" + b" " * (2 << 20)
HOSTILE = {
    "a pickle beside": (
        lambda t: changed(t, pytorch_model__bin=b"\x80\x04."),
        "nothing fetched. Found 'pytorch_model.bin'",
    ),
    "a file in a folder": (lambda t: t | {"code/x.py": b""}, "nothing fetched. Found 'code/x.py'"),
    "a path out of the folder": (lambda t: t | {"../../x": b""}, "nothing fetched. Found '../../x'"),
    "no sums": (lambda t: {k: v for k, v in t.items() if k != SUMS}, "found no SHA256SUMS"),
    "a path in the sums": (
        lambda t: t | {SUMS: t[SUMS] + b"0" * 64 + b"  ../../etc/passwd\n"},
        "expected `sha256  file`",
    ),
    "sums of a missing file": (
        lambda t: t | {SUMS: t[SUMS] + b"0" * 64 + b"  more.bin\n"},
        "listed in SHA256SUMS, but not",
    ),
    "other bytes than the sums say": (lambda t: t | {GOLDEN: b"x" * len(t[GOLDEN])}, "golden.npz: sha256 differs"),
    "a giant header": (lambda t: changed(t, model__safetensors=GIANT), "found a header of 2097152 bytes"),
    "a card of other weights": (
        lambda t: changed(t, card__json=t[CARD].replace(b"400.0", b"500.0")),
        "architecture or input differs",
    ),
    "an unlisted file": (
        lambda t: t | {SUMS: t[SUMS].replace(b"  README.md", b"  LICENSE")},
        "LICENSE', expected `sha256  file`, a bare name, each once",
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_repositories_are_refused_and_nothing_is_kept(hub, folder, tmp_path, attack):
    change, message = HOSTILE[attack]
    commit = hub.add(NAME, change(tree_of(folder)))
    with pytest.raises(SourceError, match=message) as caught:
        capezoo.load(f"hf-hub:{NAME}@{commit}")
    assert "\n" not in str(caught.value)
    assert no_weights_anywhere(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "weights", "digests.bin"}
    if "nothing fetched" in str(caught.value):
        assert not [line for line in hub.asked if "/resolve/" in line]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            {WEIGHTS: 5 << 30},
            r"nothing fetched. Found model.safetensors of 5368709120 bytes, expected at most 4294967296",
        ),
        ({CARD: 5 << 20}, r"nothing fetched. Found card.json of 5242880 bytes, expected at most 1048576"),
        ({WEIGHTS: -1}, r"nothing fetched. Found model.safetensors of -1 bytes"),
        ({WEIGHTS: 4000}, r"nothing kept. model.safetensors: found \d+ bytes, expected 4000"),
        ({WEIGHTS: "many"}, "the Hub refused or failed|Found model.safetensors of many bytes"),
    ],
)
def test_sizes_that_lie_are_refused(hub, folder, tmp_path, listed, message):
    commit = hub.add(NAME, tree_of(folder))
    hub.listed = listed
    with pytest.raises(SourceError, match=message):
        fetch(f"hf-hub:{NAME}@{commit}")
    assert no_weights_anywhere(tmp_path / "cache")


def test_a_commit_that_is_a_path_is_refused(hub, folder, tmp_path):
    hub.add(NAME, tree_of(folder))
    hub.sha = "../../../../outside"
    with pytest.raises(SourceError, match=r"found commit '\.\./\.\./.*expected 40 hexadecimal digits"):
        fetch(f"hf-hub:{NAME}@main")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "address",
    ["hf-hub:org/repo@", "hf-hub:repo@main", "hf-hub:a/b/c@main", "hf-hub:../x@main", "hf-hub:a/b@../x",
     "hf-hub:a--b/c@main", "hf-hub:a/b@x@y", "hf-hub:a/..@main"],
)  # fmt: skip
def test_a_hub_address_has_no_tricks(hub, address):
    with pytest.raises(SpecError, match="expected hf-hub:ORG/REPO@REVISION"):
        capezoo.load(address)
    assert not hub.asked


def test_what_is_not_there_is_one_line(hub, folder, monkeypatch):
    with pytest.raises(
        SourceError, match=r"hf-hub:no/body@main: the Hub refused or failed \(.*\). Check name"
    ) as caught:
        capezoo.load("hf-hub:no/body@main")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(SourceError, match=r"hf-hub:org/x: the Hub refused or failed .*401.*hf auth login"):
        push(folder, "hf-hub:org/x", "no")
    with pytest.raises(SpecError, match="expected hf-hub:ORG/REPO without revision"):
        push(folder, "hf-hub:org/x@main", "no")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    with pytest.raises(SourceError, match="hf-hub:no/body@main: the Hub refused or failed"):
        capezoo.load("hf-hub:no/body@main")


def test_a_full_disk_is_no_fault_of_the_hub(hub, folder, monkeypatch):
    from ecgcohorts.errors import MachineError

    commit = hub.add(NAME, tree_of(folder))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", full)
    with pytest.raises(MachineError, match="Free some room on the disk"):
        fetch(f"hf-hub:{NAME}@{commit}")


def test_pull_takes_folders_and_names_and_refuses_damage(folder, tmp_path, monkeypatch):
    from capezoo.zoo import listing

    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    shutil.copytree(folder, tmp_path / "bundled" / "cape_resnet.tiny")
    monkeypatch.setattr(listing, "BUNDLED", tmp_path / "bundled")
    assert tree_of(pull("cape_resnet.tiny", tmp_path / "a")) == tree_of(folder)
    with pytest.raises(SpecError, match="found something there, expected a new folder"):
        pull(folder, tmp_path / "a")
    (folder / README).write_text("changed")
    with pytest.raises(SourceError, match=r"found damaged weights.*README.md: sha256 differs"):
        pull(folder, tmp_path / "b")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "bundled", "weights", "digests.bin"}


def test_the_card_is_what_a_hub_reads(folder):
    """The front matter parses and says what the card says; nothing in it needs a network."""
    card = huggingface_hub.ModelCard.load(folder / README)
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert (data["library_name"], data["pipeline_tag"]) == ("capezoo", "feature-extraction")
    assert "ecg" in data["tags"]
    assert not [line for line in card.text.splitlines() if line.startswith("license:")]
    assert json.loads((folder / CARD).read_text())["sha256"][WEIGHTS] == sha256_of(folder / WEIGHTS)


def test_a_licence_cannot_add_lines_to_the_front_matter(folder):
    from capezoo.zoo.files import read_card
    from capezoo.zoo.publish import render

    text = render(read_card(folder).model_copy(update={"weights_licence": "x\nextra: [y]"}))
    assert set(huggingface_hub.ModelCard(text).data.to_dict()) == {"license", "library_name", "pipeline_tag", "tags"}
