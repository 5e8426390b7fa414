"""Weight folders by a stranger who wants harm: each function spoils a whole folder, and sums and card agree with it.

`CASES`: name -> (what it does to a folder, operations that must refuse the folder).
"""

import json
import os
import struct
import zipfile
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np

WEIGHTS, CONFIG, CARD, GOLDEN, SUMS = "model.safetensors", "config.json", "card.json", "golden.npz", "SHA256SUMS"
DIGESTS = "training_digests.bin"
Change = Callable[[Path], object]
ALL, RUN = frozenset({"load", "verify", "pull"}), frozenset({"verify"})  # RUN: of a file that only `verify` looks into
BUILT = frozenset({"load", "verify"})  # of settings that only the encoder knows: a copy of them does no harm
BIG = 2_000_000_000
CASES: dict[str, tuple[Change, frozenset[str]]] = {}


def resign(folder: Path, card_too: bool = True) -> None:
    """Let SHA256SUMS agree with every regular file that is small enough to read, and the card with its own list."""
    card = folder / CARD
    try:
        if not card_too or card.is_symlink() or not card.is_file() or card.stat().st_size > 1 << 26:
            raise OSError
        values = json.loads(card.read_text())
        values["sha256"] |= {name: digest(folder / name) for name in values["sha256"] if (folder / name).is_file()}
        card.write_text(json.dumps(values))
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        pass  # the card is what was spoilt
    names = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != SUMS]
    names = [path for path in names if path.stat().st_size < 1 << 26]
    (folder / SUMS).write_text("".join(f"{digest(path)}  {path.name}\n" for path in names))


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if path.stat().st_size < 1 << 26 else "0" * 64


def split(folder: Path) -> tuple[dict, bytes]:
    """Header and tensors of the weights."""
    data = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(folder: Path, header: dict | bytes, tensors: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + tensors)


def everywhere(*path: str | int, value: object) -> Change:
    """Set a field of the architecture in config, card and header alike."""

    def change(folder: Path) -> None:
        header, tensors = split(folder)
        kept = json.loads((folder / CONFIG).read_text())
        card = json.loads((folder / CARD).read_text())
        for values in (kept, card):
            inner = values
            for part in path[:-1]:
                inner = inner[part]
            inner[path[-1]] = value
        (folder / CONFIG).write_text(json.dumps(kept))
        (folder / CARD).write_text(json.dumps(card))
        header["__metadata__"]["capezoo"] = json.dumps(kept)
        join(folder, header, tensors)

    return change


def text(name: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def replaced(name: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        before = (folder / name).read_text()
        assert old in before
        (folder / name).write_text(before.replace(old, new, 1))

    return change


def header(edit: Callable[[dict], object]) -> Change:
    def change(folder: Path) -> None:
        values, tensors = split(folder)
        first = next(name for name in values if name != "__metadata__")
        edit(values[first] if edit.__name__ != "whole" else values)
        join(folder, values, tensors)

    return change


def whole(function: Callable[[dict], object]) -> Callable[[dict], object]:
    function.__name__ = "whole"
    return function


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(descr: str, shape: str, data: bytes = b"", by_columns: bool = False) -> bytes:
    """An .npy file whose header says whatever it likes."""
    head = f"{{'descr': {descr!r}, 'fortran_order': {by_columns}, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def golden(signal: bytes, embedding: bytes = npy("<f4", "(1, 6)", bytes(24))) -> Change:
    return text(GOLDEN, npz({"signal_uv.npy": signal, "embedding.npy": embedding}))


def instead(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def add(kind: str, must: frozenset[str], **changes: Change) -> None:
    CASES.update({f"{kind}: {name.replace('_', ' ')}": (change, must) for name, change in changes.items()})


RECIPE = {"name": "evil", "rate_hz": 400.0, "leads": ["I"], "steps": []}
WIDTHS = ("encoder", "config", "widths")
add(
    "settings",
    BUILT,
    two_hundred_thousand_layers=everywhere(*WIDTHS, value=[1] * 200_000),
    two_thousand_layers=everywhere(*WIDTHS, value=[1] * 2_000),
    layers_of_two_thousand_million=everywhere(*WIDTHS, value=[BIG] * 3),
    layers_of_floats=everywhere(*WIDTHS, value=[2e9] * 3),
    layers_within_bounds_that_are_too_many_together=everywhere(*WIDTHS, value=[65536] * 64),
    layers_of_text=everywhere(*WIDTHS, value=["64"] * 15_000),
    layers_of_nothing=everywhere(*WIDTHS, value={"64": None}),
    a_kernel_of_two_to_the_62=everywhere("encoder", "config", "kernel", value=2**62),
    a_stride_of_two_to_the_62=everywhere("encoder", "config", "unit_stride", value=2**62),
    a_width_of_thirty_digits=everywhere("encoder", "config", "embedding_dim", value=10**30),
    a_negative_width=everywhere("encoder", "config", "embedding_dim", value=-1),
    a_setting_that_is_not_there=everywhere("encoder", "config", "hook", value="os.system"),
    an_encoder_elsewhere=everywhere("encoder", "name", value="../../x"),
    an_encoder_of_python=everywhere("encoder", "name", value="os"),
    an_encoder_of_no_name=everywhere("encoder", "name", value="x\0y"),
)
add(
    "config",
    ALL,
    a_window_of_ten_to_the_12=everywhere("input", "length", value=10**12),
    a_window_of_nothing=everywhere("input", "length", value=0),
    a_rate_of_ten_to_the_300=everywhere("input", "rate_hz", value=1e300),
    twenty_thousand_leads=everywhere("input", "leads", value=["II"] * 20_000),
    leads_of_no_body=everywhere("input", "leads", value=["I", "../../x"]),
    a_recipe_of_a_million_hertz=everywhere("input", "own_recipe", value=RECIPE | {"rate_hz": 1e300}),
    a_recipe_of_many_steps=everywhere("input", "own_recipe", value=RECIPE | {"steps": [{"kind": "x"}] * 10_000}),
    a_list=text(CONFIG, "[]"),
    a_number=text(CONFIG, "7"),
    nothing=text(CONFIG, ""),
    no_text=text(CONFIG, b"\xff\xfe\x00"),
    ten_to_the_5_brackets=text(CONFIG, "[" * 100_000),
    ten_to_the_5_objects=text(CONFIG, '{"a":' * 100_000),
    a_hundred_levels=text(CONFIG, '{"a":' * 100 + "1" + "}" * 100),
    a_key_twice=replaced(CONFIG, '"encoder"', '"encoder": {"name": "cape_resnet"}, "encoder"'),
    a_hundred_thousand_keys=text(CONFIG, json.dumps({f"k{i}": i for i in range(80_000)})),
    nineteen_thousand_keys=text(CONFIG, json.dumps({f"k{i}": i for i in range(19_000)})),
    half_a_million_digits=replaced(CONFIG, '"length": 400', '"length": ' + "9" * 500_000),
    not_a_number=replaced(CONFIG, '"length": 400', '"length": NaN'),
    infinity=replaced(CONFIG, '"length": 400', '"length": Infinity'),
    two_megabytes=text(CONFIG, " " * (2 << 20)),
)
add(
    "card",
    ALL,
    digests_of_files_elsewhere=replaced(CARD, '"sha256": {', f'"sha256": {{"../../etc/passwd": "{"0" * 64}", '),
    digests_of_an_absolute_path=replaced(CARD, '"sha256": {', f'"sha256": {{"/etc/passwd": "{"0" * 64}", '),
    digests_of_a_device=replaced(CARD, '"sha256": {', f'"sha256": {{"/dev/zero": "{"0" * 64}", '),
    a_key_twice=replaced(CARD, '"name"', '"name": "x", "name"'),
    a_million_digits=replaced(CARD, '"parameters": 1', '"parameters": ' + "9" * 900_000),
    many_versions=replaced(CARD, '"name"', '"known_failures": ' + json.dumps(["x"] * 100_000) + ', "name"'),
    wrong_types=replaced(CARD, '"parameters": 1', '"parameters": {"a": [1]}'),
    brackets=text(CARD, "[" * 100_000),
    nothing=text(CARD, ""),
    two_megabytes=text(CARD, " " * (2 << 20)),
)
ZERO = "0" * 64
add(
    "sums",
    ALL,
    a_path_elsewhere=lambda folder: more_sums(folder, f"{ZERO}  ../secret\n"),
    an_absolute_path=lambda folder: more_sums(folder, f"{ZERO}  /etc/passwd\n"),
    a_device=lambda folder: more_sums(folder, f"{ZERO}  /dev/zero\n"),
    a_name_with_an_escape_code=lambda folder: more_sums(folder, f"{ZERO}  \x1b[2Jx\n"),
    a_name_twice=lambda folder: more_sums(folder, (folder / SUMS).read_text().splitlines()[0] + "\n"),
    many_lines=lambda folder: more_sums(folder, "".join(f"{ZERO}  f{i}\n" for i in range(14_000))),
    two_megabytes=lambda folder: more_sums(folder, "x" * (2 << 20)),
    no_lines=lambda folder: (folder / SUMS).write_text(""),
    no_text=lambda folder: (folder / SUMS).write_bytes(b"\xff" * 99),
)


def more_sums(folder: Path, lines: str) -> None:
    with (folder / SUMS).open("a") as file:
        file.write(lines)


@whole
def _twice(values: dict) -> None:
    values["again"] = dict(next(value for name, value in values.items() if name != "__metadata__"))


@whole
def _more_metadata(values: dict) -> None:
    values["__metadata__"]["hook"] = "x"


@whole
def _metadata_of_another_kind(values: dict) -> None:
    values["__metadata__"] = {"capezoo": [1]}


add(
    "tensors",
    ALL,
    a_header_of_ten_to_the_18=text(WEIGHTS, struct.pack("<Q", 10**18) + b"{}"),
    a_header_of_two_megabytes=lambda folder: join(folder, b"{" + b" " * (2 << 20) + b"}", b""),
    a_header_of_brackets=lambda folder: join(folder, b"[" * 100_000, b""),
    a_header_with_a_name_twice=lambda folder: join(
        folder, b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{}}', bytes(4)
    ),
    nothing=text(WEIGHTS, b""),
    half_of_it=lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:3000]),
    a_shape_of_two_to_the_62=header(lambda entry: entry.update(shape=[2**62, 4])),
    a_shape_of_thirty_digits=header(lambda entry: entry.update(shape=[10**30])),
    a_shape_of_ten_thousand_axes=header(lambda entry: entry.update(shape=[1] * 10_000)),
    a_shape_of_large_axes=header(lambda entry: entry.update(shape=[1000] * 10_000)),
    a_shape_of_truths=header(lambda entry: entry.update(shape=[True, True])),
    a_shape_of_text=header(lambda entry: entry.update(shape="44")),
    negative_sides=header(lambda entry: entry.update(shape=[-4, -4])),
    offsets_before_the_start=header(lambda entry: entry.update(data_offsets=[-64, 0])),
    offsets_beyond_the_end=header(lambda entry: entry.update(data_offsets=[0, 1 << 40])),
    offsets_of_floats=header(lambda entry: entry.update(data_offsets=[0.0, 4.5])),
    one_offset=header(lambda entry: entry.update(data_offsets=[0])),
    overlapping=header(_twice),
    an_unknown_type=header(lambda entry: entry.update(dtype="PICKLE")),
    other_metadata=header(_more_metadata),
    metadata_of_another_kind=header(_metadata_of_another_kind),
)
add(
    "golden",
    RUN,
    ten_to_the_11_values=golden(npy("<i2", "(100000000000, 8, 400)")),
    ten_to_the_11_features=golden(npy("<i2", "(1, 8, 400)", bytes(6400)), npy("<f4", "(100000000000,)")),
    a_negative_shape=golden(npy("<i2", "(-1, -8, 400)", bytes(6400))),
    a_shape_of_many_axes=golden(npy("<i2", "(" + "1, " * 200 + ")", bytes(2))),
    objects=golden(npy("|O", "(1, 8, 400)", b"\x80\x04.")),
    by_columns=golden(npy("<i2", "(1, 8, 400)", bytes(6400), by_columns=True)),
    a_header_that_is_code=golden(npy("<i2", "(__import__('os').getpid(),)", bytes(6400))),
    thousands_of_signals=golden(
        npy("<i2", "(4096, 8, 400)", bytes(4096 * 6400)), npy("<f4", "(4096, 6)", bytes(4096 * 24))
    ),
    a_bomb=text(GOLDEN, npz({"signal_uv.npy": bytes(50_000_000), "embedding.npy": bytes(100)}, zipfile.ZIP_DEFLATED)),
    sixty_thousand_members=text(GOLDEN, npz({f"{i}.npy": b"" for i in range(60_000)})),
    a_member_elsewhere=text(GOLDEN, npz({"../../signal_uv.npy": b"", "embedding.npy": b""})),
    nothing=text(GOLDEN, b""),
    no_archive=text(GOLDEN, b"PK\5\6" + bytes(18)),
    noise=text(GOLDEN, np.random.default_rng(0).bytes(10_000)),
    half_of_it=lambda folder: (folder / GOLDEN).write_bytes((folder / GOLDEN).read_bytes()[:5000]),
)
for _name in (WEIGHTS, CONFIG, CARD, GOLDEN, SUMS, DIGESTS, "README.md", "LICENSE"):
    add(
        _name,
        ALL,
        a_link_to_a_file=instead(_name, lambda path: path.symlink_to("/etc/passwd")),
        a_link_to_a_device=instead(_name, lambda path: path.symlink_to("/dev/zero")),
        a_link_to_itself=instead(_name, lambda path: path.symlink_to(path)),
        a_pipe=instead(_name, os.mkfifo),
        a_folder=instead(_name, lambda path: path.mkdir()),
        a_file_of_five_gigabytes_of_holes=instead(_name, sparse(5 << 30)),
    )
