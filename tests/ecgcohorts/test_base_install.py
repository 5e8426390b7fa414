"""A base install, which samplers and loaders are content with: no package that reads raw files is there."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ecgcohorts.errors import EcgError, MissingExtra, install_line, needs_extra

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RAW = [re.match(r"\w+", line)[0] for line in PROJECT["optional-dependencies"]["ingest"]]

# Packages of the extra are hidden, as are those that come with them only.
HIDDEN = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*RAW, "matplotlib", "torch", "soundfile")!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import importlib.util
real = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return real(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
import numpy as np
import ecgcohorts as ec
"""
ENOUGH = """
from ecgcohorts.index import splits
store = ec.open(sys.argv[1])
sampler = ec.InDistributionBatchSampler(store.index, pairs=1, seed=0)
batch = next(iter(ec.Loader(store, sampler, window=2800)))
assert batch.signal.shape == (1, 2, 8, 2800) and batch.signal.any()
assert len(store.index.to_pandas()) == len(store.index)
assert splits.by_patient(store.index, {"train": 0.5, "test": 0.5}, "s").name == "s"
both = ec.open([sys.argv[1]])
assert both.read(both.index["row"][:1]).shape == (1, 8, 4000)
assert not sys.modules.keys() & {"pyarrow", "scipy", "h5py", "pydicom", "wfdb"}
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDDEN + code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_extra_is_what_this_file_hides():
    assert sorted(RAW) == ["h5py", "pyarrow", "pydicom", "scipy", "wfdb"]
    base = " ".join(PROJECT["dependencies"])
    assert not [name for name in RAW if name in base]
    assert "ecgcohorts[ingest]" in PROJECT["optional-dependencies"]["zoo"]


def test_stores_samplers_and_loaders_need_no_more():
    used = run(ENOUGH, ROOT / "tests" / "golden" / "store-1")
    assert used.returncode == 0, used.stderr


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("from ecgcohorts.ingest import ingest", "pyarrow"),
        ("ec.make_strip", "scipy"),
        ("ec.open(sys.argv[1]).rejects()", "pyarrow"),
        ("import ecgcohorts.export", "pyarrow"),
        (
            "from ecgcohorts.readers import code_hdf5; import pathlib; list(code_hdf5.read(pathlib.Path(sys.argv[2])))",
            "h5py",
        ),
    ],
    ids=["ingest", "make_strip", "rejects", "export", "a file"],
)
def test_what_needs_the_extra_names_it(code, package, tmp_path):
    (tmp_path / "x.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(4096))
    failed = run(code, ROOT / "tests" / "golden" / "store-1", tmp_path / "x.hdf5")
    last = failed.stderr.strip().splitlines()[-1]
    assert last == f"ecgcohorts.errors.MissingExtra: {package} is not installed. Run: {install_line('ingest')}"


@pytest.mark.parametrize(
    "words", [("ingest", "raw", "s.zarr", "--cohort", "ptb_xl"), ("verify", "tests/golden/store-1")]
)
def test_a_command_says_so_in_one_line(words):
    failed = run("from ecgcohorts.cli.program import main; main(sys.argv[1:])", *words)
    assert failed.returncode == 2
    assert failed.stderr == f"ecgcohorts: pyarrow is not installed. Run: {install_line('ingest')}\n"


def test_formats_say_which_of_them_lack_a_package():
    listed = run("from ecgcohorts.cli.program import main; main(['formats', '--json'])")

    missing = {one["format"]: one["missing_packages"] for one in json.loads(listed.stdout)}
    found = {name: packages for name, packages in missing.items() if packages}
    assert found == {"arrays": ["h5py"], "code_hdf5": ["h5py"], "dicom": ["pydicom"], "wfdb": ["wfdb"]}
    shown = " ".join(run("from ecgcohorts.cli.program import main; main(['formats'])").stdout.split())
    assert "needs pydicom, which is not installed. Run:" in shown


def test_a_defect_of_ours_stays_a_defect():
    with pytest.raises(ModuleNotFoundError, match=r"ecgcohorts\.nonsense"), needs_extra("ingest"):
        import ecgcohorts.nonsense  # noqa: F401
    with pytest.raises(MissingExtra, match=r"^nonsense is not installed") as error, needs_extra("ingest"):
        import nonsense.deep  # noqa: F401
    assert isinstance(error.value, EcgError | ImportError)
    assert error.value.name == "nonsense"
