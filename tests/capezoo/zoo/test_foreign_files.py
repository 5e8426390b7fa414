"""Files of others are read and never run: torch's two formats, safetensors, and what only looks like them."""

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from capezoo.zoo.importers._checkpoint import read_tensors
from capezoo.zoo.importers._pickled import read_pickle
from ecgcohorts.errors import SourceError


class Runs:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch it-ran",)


class Foreign(dict):
    """A class of another package, which fills itself in all the ways pickles know."""

    def __reduce_ex__(self, protocol: int) -> Any:
        return Foreign, (), {"a": 1}, iter([3]), iter([("k", Runs())])

    def append(self, _: Any) -> None: ...


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {
        "weight": torch.randn(3, 4, generator=generator),
        "turned": torch.randn(4, 3, generator=generator).t(),
        "part": torch.randn(20, generator=generator)[5:9],
        "parameter": torch.nn.Parameter(torch.randn(2, generator=generator)),
        "half": torch.randn(3, generator=generator).half(),
        "brain": torch.randn(3, generator=generator).bfloat16(),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
    }
    return made | {"tied": made["weight"]}


def checkpoint() -> dict[Any, Any]:
    """What training leaves in a file: tensors, an optimiser, a configuration of foreign classes."""
    state = collections.OrderedDict(tensors())
    state._metadata = collections.OrderedDict(version=1)  # type: ignore[attr-defined]  # as torch's modules do
    rest = {
        "epoch": 3,
        "best": np.float64(0.9),
        "config": Foreign(),
        "shape": torch.Size([2, 3]),
        ("a", 1): [{2}, b"x"],
    }
    return {
        "state_dict": state,
        "optimizer": {0: {"step": torch.tensor(1.0)}},
        "path": Path("x"),
        "runs": Runs(),
    } | rest


def same(found: dict[str, Tensor]) -> None:
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "file.pth"


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_checkpoint_is_read_and_nothing_in_it_runs(path: Path, is_new: bool, protocol: int) -> None:
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=is_new, pickle_protocol=protocol)
    same(read_tensors(path, ("state_dict",)))
    assert set(read_tensors(path, ("state_dict",), lambda name: name == "half")) == {"half"}
    assert not Path("it-ran").exists()
    pickle.loads(pickle.dumps(Runs()))  # the same object does run where pickles are unpickled
    assert Path("it-ran").exists()


def test_a_configuration_of_omegaconf_is_passed_over(path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    torch.save(checkpoint() | {"cfg": omegaconf.OmegaConf.create({"a": [1, {"b": 2}]})}, path)
    same(read_tensors(path, ("state_dict",)))


def test_safetensors_and_a_bare_dictionary(path: Path) -> None:
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors().items()}, path)
    same(read_tensors(path, ()))
    torch.save(tensors(), path)
    same(read_tensors(path, ()))


@pytest.mark.parametrize("kind", ["new", "old", "safe"])
def test_a_file_cut_anywhere_is_one_sentence(path: Path, kind: str) -> None:
    if kind == "safe":
        save_file({"weight": torch.randn(30)}, path)
    else:
        torch.save({"state_dict": {"weight": torch.randn(30)}}, path, _use_new_zipfile_serialization=kind == "new")
    whole = path.read_bytes()
    for stop in range(0, len(whole) - 1, 1 + len(whole) // 60):
        path.write_bytes(whole[:stop])
        with pytest.raises(SourceError, match=r"found .* expected weights: a checkpoint of torch") as error:
            read_tensors(path, () if kind == "safe" else ("state_dict",))
        assert "\n" not in str(error.value)


def test_any_byte_changed_raises_nothing_but_our_error(path: Path) -> None:
    for is_new in (True, False):
        torch.save({"state_dict": {"weight": torch.randn(3)}}, path, _use_new_zipfile_serialization=is_new)
        whole = path.read_bytes()
        for place in range(0, min(len(whole), 2000), 11):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x2A]) + whole[place + 1 :])
            try:
                found = read_tensors(path, ("state_dict",))
            except SourceError as error:
                assert str(path) in str(error)  # noqa: PT017 - most changed bytes are refused, some are numbers
            else:
                assert all(tensor.numel() <= 3 for tensor in found.values())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", r"found a file that begins with b'<!DOCTYPE html><'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 124000000\n", "begins with b'version https"),
        (b"", r"found a file that begins with b''"),
        (b"PK\3\4" + bytes(40), "found a file that is damaged or cut off"),
    ],
)
def test_a_page_saved_in_place_of_weights_is_told(path: Path, text: bytes, sentence: str) -> None:
    path.write_bytes(text)
    with pytest.raises(SourceError, match=sentence):
        read_tensors(path, ())


def test_another_checkpoint_names_the_keys_it_has(path: Path) -> None:
    torch.save(checkpoint(), path)
    with pytest.raises(SourceError, match=r"found the keys state_dict, optimizer, .* expected 'model'"):
        read_tensors(path, ("model",))
    with pytest.raises(SourceError, match="expected tensors"):
        read_tensors(path, ())


def in_archive(path: Path, pickled: bytes, data: bytes = bytes(16), **more: Any) -> None:
    with zipfile.ZipFile(path, "w", **more) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", data)


def tensor_of(shape: tuple, strides: tuple, offset: int = 0, count: int = 4, key: str = "0") -> bytes:
    """A pickle of one tensor, as torch writes it: protocol 0, whose opcodes a person can read."""
    sides = ["(" + "".join(f"I{side}\n" for side in sides) + "t" for sides in (shape, strides)]
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'{key}'\nS'cpu'\nI{count}\ntQ"
    rebuilt = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{sides[0]}{sides[1]}I00\n(dtR"
    return f"(dS'w'\n{rebuilt}s.".encode()


def test_the_smallest_archive_by_hand(path: Path) -> None:
    in_archive(path, tensor_of((2, 2), (2, 1)), np.arange(4, dtype="<f4").tobytes())
    assert read_tensors(path, ())["w"].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "pickled",
    [
        tensor_of((1 << 40,), (0,)),  # repeats one number
        tensor_of((5,), (1,)),
        tensor_of((2,), (1,), offset=3),
        tensor_of((2,), (-1,), offset=1),
        tensor_of((4,), (1,), count=1 << 40),
        tensor_of((4,), (1,), key="../../etc/passwd"),
        b"(dS'w'\n" + b"(" * 20_000 + b"l" * 20_000 + b"s.",
        b"\x8c\x01a" + b"\x85" * 50_000 + b"K\x01\x85\x86.",  # tuples in tuples
        b"}" + b"(" + b"\x8c\x01a" + b"\x85" * 50_000 + b"K\x01u.",  # as a key, whose hash would end Python
        b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"x.",
    ],
    ids=lambda pickled: None,
)
def test_hostile_pickles_take_no_memory_and_run_nothing(path: Path, pickled: bytes) -> None:
    in_archive(path, pickled)
    with pytest.raises(SourceError, match="expected"):
        read_tensors(path, ())


def test_compressed_archives_and_links_are_refused(path: Path) -> None:
    in_archive(path, tensor_of((4,), (1,)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match="an archive that is compressed"):
        read_tensors(path, ())
    link = path.with_name("link.pth")
    link.symlink_to(path)
    with pytest.raises(SourceError, match="found a symbolic link"):
        read_tensors(link, ())


def test_a_name_that_is_a_list_of_lists():
    """A list of 300 bytes whose text has a million million: it is refused, and never written out."""
    doubled = b"".join(b"(h%ch%clq%c0" % (depth, depth, depth + 1) for depth in range(40))
    data = b"\x80\x04]q\x000" + doubled + b"h\x28\x8c\x01x\x93."
    with pytest.raises(ValueError, match="no pickle"):
        read_pickle(io.BytesIO(data), lambda name, arguments: None)
