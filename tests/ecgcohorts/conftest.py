"""Small raw cohorts for tests: WFDB files whose every sample is known, with a YAML description beside them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ecgcohorts.io import buckets as objects
from ecgcohorts.io.buckets import Bucket

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE_HZ = 500
COHORT_YAML = """\
name: {name}
title: A cohort made for a test
licence: CC0-1.0
citation: made for a test
mains_hz: 50
layouts:
  - reader: wfdb
    files: {{include: ["**/*.hea"]}}
    patient: {{header: Patient ID}}
    age: {{header: Age}}
    sex: {{header: Sex}}
    acquired_at: {{header: Date}}
    labels:
      af: {{find: {{header: AF}}}}
"""


def beats(seed: int, seconds: float = 10.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """(12, time) int16 in microvolts: a spike train that passes for an ECG, different for every seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = np.zeros_like(time)
    for centre in np.arange(0.3, seconds, rng.uniform(0.6, 1.1)):
        wave += np.exp(-(((time - centre) / 0.012) ** 2)) + 0.25 * np.exp(-(((time - centre - 0.25) / 0.05) ** 2))
    one, two = rng.uniform(0.5, 1.5, 2)
    chest = rng.uniform(-1.5, 1.5, 6)
    chest[np.abs(chest) < 0.5] = 0.5
    weights = np.array([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])
    signal_uv = 1000 * weights[:, None] * wave + rng.normal(0, 8, (12, len(time)))
    return np.rint(signal_uv).astype(np.int16)


def write_wfdb(folder: Path, name: str, samples: np.ndarray, comments: dict[str, str], rate_hz: int = RATE_HZ) -> None:
    """One 12-lead record in format 16 with checksums, 1 uV a step."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} {len(samples)} {rate_hz} {samples.shape[1]}"]
    for lead, row in zip(LEADS, samples, strict=True):
        checksum = int(row.astype(np.int64).sum()) & 0xFFFF
        lines.append(f"{name}.dat 16 1000(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
    lines += [f"# {key}: {value}" for key, value in comments.items()]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.dat").write_bytes(np.ascontiguousarray(samples.T, "<i2").tobytes())


@dataclass
class RawCohort:
    """A folder of raw recordings, its description, and the text that must never leave it."""

    folder: Path
    spec: Path
    signals: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, samples: np.ndarray, **comments: str) -> None:
        write_wfdb(self.folder, name, samples, comments)
        self.signals[name] = samples


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., RawCohort]:
    """make_cohort("north", patients=5) writes 1, 2, 3, 1, 2 ... recordings of CANARY-named patients."""

    def make(name: str = "north", patients: int = 5, seed: int = 0) -> RawCohort:
        folder = tmp_path / f"raw_{name}"
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(COHORT_YAML.format(name=name))
        cohort = RawCohort(folder, spec)
        for patient in range(patients):
            for visit in range(1 + patient % 3):
                cohort.add(
                    f"CANARYREC{patient:03d}v{visit}",
                    beats(seed * 10_000 + patient * 10 + visit),
                    **{"Patient ID": f"CANARYPAT{patient:04d}"},
                    Age=str(30 + patient),
                    Sex=("Male", "Female")[patient % 2],
                    Date=f"20{10 + visit}-03-0{1 + visit}T10:00:00",
                    AF=str(patient % 2),
                )
        return cohort

    return make


@pytest.fixture(autouse=True)
def _key_in_a_temporary_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's own pseudonym key; all tests share one, the same in every run.

    Keys decide the order of patients: under a new one each time, a test that holds under most keys fails now and then.
    """
    home = tmp_path_factory.getbasetemp() / "home"
    key = home / "ecgcohorts" / "pseudonym.key"
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_text(sha256(b"ecgcohorts tests").hexdigest(), "ascii")
        key.chmod(0o600)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync guards against power loss, which no test here can cause; without it the suite takes a third of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def memory_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://...`: an object store in memory, as is any other URL; for tests that write thousands of times."""
    store = pytest.importorskip("obstore.store", reason="obstore is not installed")
    places: dict[str, object] = {}
    monkeypatch.setattr(objects, "_connect", lambda url: places.setdefault(url, store.MemoryStore()))
    return "s3://memory/s.zarr"


_REQUESTS = ("stamps", "size", "tag", "get", "get_range", "noted_sha256", "put", "put_new", "replace", "delete")


class _Killed(BaseException):
    """In place of SIGKILL: nothing that is asked of an object store afterwards reaches it."""


@pytest.fixture
def kill_at() -> Callable[[int], contextlib.AbstractContextManager[list[str]]]:
    """`with kill_at(k) as killed:` ends at request k of all to object stores, which `killed` then names."""

    @contextlib.contextmanager
    def kill(at: int) -> Iterator[list[str]]:
        asked, killed = [0], []

        def counted(name: str, real: Callable[..., object]) -> Callable[..., object]:
            def call(self: Bucket, *args: object, **kwargs: object) -> object:
                if asked[0] >= at:
                    killed.append(f"{name} {args[:1]}")
                    raise _Killed
                asked[0] += 1
                return real(self, *args, **kwargs)

            return call

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(_Killed):
            for name in _REQUESTS:
                patch.setattr(Bucket, name, counted(name, getattr(Bucket, name)))
            yield killed

    return kill
