"""Reading raw files beside the libraries people use for it, in one run: `make bench`, and the table of docs/formats.md.

    python tests/benchmarks/bench_reading.py            # prints the table
    python tests/benchmarks/bench_reading.py --write    # puts it into docs/formats.md, between its two markers
    python tests/benchmarks/bench_reading.py edf --write    # the same for one row

Real files where the recordings beside the checkout are there, else the ten seconds that the fixture writer of the
format makes. Ours and the peer take turns, all files each; a ratio is that of the medians. Files are in the page
cache, times are processor time.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from ecgcohorts import plugins, readers

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
PAGE, FUZZ = ROOT / "docs" / "formats.md", ROOT / "docs" / "data" / "fuzz.json"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
TURNS = 5
MOST_FILES = 40  # of a cohort, evenly spread

# Real files of each format, below the shared recordings; formats without one are measured on generated files.
SAMPLES = {
    "wfdb": "ptb_xl/records500/**/*.hea",
    "muse_xml": "vendor/ge_muse_xml/*.xml",
    "philips_xml": "vendor/philips_sierra_xml/1_0*",
    "hl7_aecg": "vendor/hl7_aecg/[cfmlp]*_*.xml",
    "schiller_xml": "vendor/schiller_sema/*.xml",
    "mfer": "vendor/mfer/*.MWF",
    "contec": "vendor/contec/*.ECG",
    "scp": "vendor/scp_ecg/mortara*.scp",
    "dicom": "vendor/dicom/*.dcm",
}
TOO_SMALL_BYTES = 10_000  # minimal files say nothing about speed


# Format: (values nobody here computed, independent readers that a test compares with).
WITNESSES = {
    "alivecor_json": ("none, no real file at hand", "ecgdatakit"),
    "arrays": ("Einthoven's law in 302 real text files", "numpy, scipy, h5py"),
    "cardiosoft_xml": ("digits of one real file (example of ecgprocess 1.2.0), by hand", "none reads it"),
    "code_hdf5": ("waveform digests of 20 recordings in WFDB", "h5py"),
    "contec": ("50 Hz of the mains confirm the rate of one real file, nothing its step", "none reads it"),
    "dicom": ("samples published with pydicom, 2 files", "pydicom, ecgdatakit"),
    "edf": ("none, no real file at hand", "pyedflib"),
    "fhir_json": ("none, no real file at hand", "none reads it"),
    "hl7_aecg": ("CRC-32 of 7 files, the same ECG as SCP", "ecgdatakit"),
    "ishne": ("none, no real file at hand", "ecgdatakit"),
    "mfer": ("none in the file: a plausible heart rate in twelve minutes of one real file", "ecgdatakit"),
    "mortara_xml": ("none, no real file at hand", "ecgdatakit"),
    "muse_xml": ("CRC-32 of every lead of 2 files", "ecgdatakit"),
    "philips_xml": ("published samples of 4 files, CRC-32 of 6", "sierraecg, ecgdatakit"),
    "schiller_xml": ("Einthoven's and Goldberger's laws in one real file, exactly", "none reads it"),
    "scp": (
        "CRC-CCITT of the file, the same ECG as aECG, example of the standard; CRC and Einthoven's law in Healforce's",
        "ecgdatakit",
    ),
    "wfdb": ("checksum and first value in each of 1,578 headers, published samples of ten formats", "wfdb"),
}


class Peer(NamedTuple):
    name: str
    read: Callable[[Path], Any]
    target: float  # times as fast as the peer ...
    or_ms: float = 0.0  # ... or below so many milliseconds a file


class Measured(NamedTuple):
    files: str
    ms: float
    peer: Peer | None
    peer_ms: float | None  # None: the peer refuses every file

    @property
    def ratio(self) -> float | None:
        return None if self.peer_ms is None else self.peer_ms / self.ms


def _wfdb(path: Path) -> Any:
    import wfdb

    return wfdb.rdrecord(str(path.with_suffix("")))


def _sierraecg(path: Path) -> Any:
    import sierraecg

    return sierraecg.read_file(str(path))


def _ecgdatakit(path: Path) -> Any:
    import ecgdatakit

    return ecgdatakit.FileParser().parse(path)


def _pydicom(path: Path) -> Any:
    import pydicom

    dataset = pydicom.dcmread(path)
    return [dataset.waveform_array(place) for place in range(len(dataset.WaveformSequence))]


def _pyedflib(path: Path) -> Any:
    from pyedflib import highlevel

    return highlevel.read_edf(str(path))


PEERS = {
    "wfdb": Peer("wfdb", _wfdb, 25),
    "philips_xml": Peer("sierraecg", _sierraecg, 10),
    "edf": Peer("pyedflib.highlevel", _pyedflib, 5),
    "dicom": Peer("pydicom", _pydicom, 1),
    **{name: Peer("ecgdatakit", _ecgdatakit, 5, 5.0) for name in ("scp", "muse_xml", "hl7_aecg")},
    **{
        name: Peer("ecgdatakit", _ecgdatakit, 1)
        for name in ("alivecor_json", "cardiosoft_xml", "ishne", "mfer", "mortara_xml")
    },
}


def writer_of(name: str) -> ModuleType:
    path = ROOT / "tests" / "ecgcohorts" / "readers" / f"write_{name}.py"
    spec = spec_from_file_location(f"bench_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def files_of(name: str) -> Iterator[tuple[str, list[Path]]]:
    """(what they are, paths) of the files a format is measured on."""
    found = sorted(SHARED.glob(SAMPLES[name])) if name in SAMPLES else []
    found = [path for path in found if path.suffix == ".hea" or path.stat().st_size > TOO_SMALL_BYTES]
    if found:
        step = -(-len(found) // MOST_FILES)
        yield f"{len(found[::step])} real", found[::step]
        return
    with tempfile.TemporaryDirectory() as folder:
        yield "generated, 10 s", [writer_of(name).write(Path(folder), seconds=10.0)[0]]


def measure(name: str) -> Measured:
    """Median milliseconds a file, ours and the peer's, taking turns."""
    reader, peer = plugins.load(readers.KIND, name), PEERS.get(name)
    ours: list[float] = []
    theirs: list[float] = []
    with files_of(name) as (what, paths), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own
        for turn in range(TURNS + 1):
            gc.collect()  # between turns and not within, as `timeit` has it: a peer's garbage is no cost of ours
            gc.disable()
            for path in paths:
                _time(lambda path=path: list(reader.read(path)), ours)
            for path in paths if peer is not None else ():
                _time(lambda path=path: peer.read(path), theirs, may_fail=True)
            gc.enable()
            if turn == 0:  # imports, caches
                ours.clear()
                theirs.clear()
    return Measured(what, statistics.median(ours), peer, statistics.median(theirs) if theirs else None)


def _time(call: Callable[[], object], into: list[float], may_fail: bool = False) -> None:
    start = time.process_time()
    try:
        call()
    except Exception:
        if not may_fail:
            raise
        return
    into.append(1e3 * (time.process_time() - start))


@pytest.mark.parametrize("name", plugins.names(readers.KIND))
def test_reading(benchmark, name):
    """Never slower than the peer; beside the ratio stands its target."""
    found = measure(name)
    with files_of(name) as (_, paths):
        reader = plugins.load(readers.KIND, name)
        benchmark(lambda: list(reader.read(paths[0])))
    benchmark.extra_info |= {"files": found.files, "ms": round(found.ms, 3)}
    if found.ratio is not None and found.peer is not None:
        met = found.ratio >= found.peer.target or found.ms <= found.peer.or_ms
        benchmark.extra_info |= {
            f"times_{found.peer.name}": round(found.ratio, 1),
            "target": found.peer.target,
            "met": met,
        }
        assert found.ratio >= 1


HEAD = (
    "| format | variants | oracle | compared with | mutants tried | CPU ms per file | peer, same run |",
    "|---|---|---|---|---|---|---|",
)


def rows_of(names: Sequence[str]) -> dict[str, str]:
    """Format -> row of Markdown: variants, oracle, differential peers, mutants tried, milliseconds a file."""
    fuzz = json.loads(FUZZ.read_text("utf-8")) if FUZZ.is_file() else {}
    rows = {}
    for name in names:
        reader, found = plugins.load(readers.KIND, name), measure(name)
        oracle, compared = WITNESSES[name]
        versus = "none"
        if found.peer is not None:
            times = "refuses it" if found.ratio is None else f"{found.ratio:.1f} times"
            versus = f"{found.peer.name}: {times}"
        cells = [
            f"`{name}`",
            "; ".join(reader.VARIANTS),
            oracle,
            compared,
            f"{fuzz[name]['mutants']:,}" if name in fuzz else "2,000",
            f"{found.ms:.2f} ({found.files})",
            versus,
        ]
        rows[name] = "| " + " | ".join(cells) + " |"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("formats", nargs="*", help="rows to measure; all of them if none is named")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/formats.md")
    given = parser.parse_args()
    made = rows_of(given.formats or plugins.names(readers.KIND))
    print("\n".join((*HEAD, *made.values())))
    if given.write:
        text = PAGE.read_text("utf-8")
        before, (table, after) = text.split(BEGIN)[0], text.split(BEGIN)[1].split(END)
        written = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
        lines = [(written | made)[name] for name in plugins.names(readers.KIND)]
        PAGE.write_text("\n".join((f"{before}{BEGIN}", *HEAD, *lines, f"{END}{after}")), "utf-8")


if __name__ == "__main__":
    main()
