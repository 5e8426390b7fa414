"""Repeat on real recordings the measurements behind recipe `cape-v1`, and print the tables of docs/preprocessing.md.

    python tests/benchmarks/measure_preprocessing.py ../shared/data

Deterministic but for the times. Errors are in microvolts: the largest over leads and samples of a recording, then the
median / 95th percentile / largest over recordings. "Window" is the 7 s in the middle of the strip.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from ecgcohorts.errors import EcgError
from ecgcohorts.leads import select
from ecgcohorts.preprocess import quality
from ecgcohorts.preprocess.filter import _design_filters, _strip_filter
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import Notch
from ecgcohorts.preprocess.strip import _cut_strip, _rate_ratio, make_strip
from ecgcohorts.readers.wfdb import reader as wfdb
from ecgcohorts.recording import Recording

Array = NDArray[np.float64]
PADDINGS: dict[str, dict] = {
    "SciPy's default (odd, 27 samples)": {},
    "odd 2 s": {"padtype": "odd", "padlen": 800},
    "even 2 s (cape-v1)": {"padtype": "even", "padlen": 800},
    "even 4 s": {"padtype": "even", "padlen": 1600},
    "constant 2 s": {"padtype": "constant", "padlen": 800},
}


def recordings(folder: Path, every: int = 1) -> Iterator[Recording]:
    for path in sorted(folder.rglob("*.hea"))[::every]:
        try:
            yield next(iter(wfdb.read(path)))
        except EcgError as error:
            print(f"skipped: {error}", file=sys.stderr)


def native(recording: Recording) -> Array | None:
    """The strip at its own rate, or None if the recipe refuses it."""
    try:
        make_strip(recording, with_quality=False)
    except EcgError:
        return None
    return _cut_strip(recording.leads_mv(), recording.rate_hz, CAPE_V1)[0]


def at_400(recording: Recording, signal_mv: Array) -> Array:
    return signal.resample_poly(signal_mv, *_rate_ratio(recording.rate_hz, CAPE_V1), axis=1, padtype="line")


def window(strip: Array) -> Array:
    edge = (strip.shape[1] - CAPE_V1.window_samples) // 2
    return strip[:, edge : edge + CAPE_V1.window_samples]


def largest_uv(a: Array, b: Array) -> float:
    return float(1000 * np.abs(a - b).max())


def spread(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.2g}" for value in np.percentile(list(values), [50, 95, 100]))


def filtfilt(x: Array, notch_hz: float | None = None, **padding: object) -> Array:
    return signal.sosfiltfilt(_design_filters(500.0, CAPE_V1, notch_hz), x, axis=1, **padding)


def measure_one_transform(root: Path) -> None:
    """The strip as it is computed, before rounding, against `resample_poly` and `sosfiltfilt`; without and with a notch."""
    print("\n### One pair of Fourier transforms against SciPy's two steps\n")
    print(
        "| source | strips | window | whole strip | samples stored otherwise | nearest half, uV |\n|---|---|---|---|---|---|"
    )
    for folder in (
        "ptb_xl/records500",
        "ptb_xl/records100",
        "code15",
        "cinc2021",
        "mimic_iv_ecg",
        "sami_trop",
        "brugada_huca",
        "ptb_diagnostic",
    ):
        inside, whole, otherwise, nearest = [], [], [], np.inf
        for recording in recordings(root / folder):
            if (x := native(recording)) is None:
                continue
            rate_hz, ratio = recording.rate_hz, _rate_ratio(recording.rate_hz, CAPE_V1)
            for notch_hz in (None, 60.0) if rate_hz >= 60 * CAPE_V1.required(Notch).min_source_rate_ratio else (None,):
                found = _strip_filter(x.shape[1], ratio, rate_hz, CAPE_V1, notch_hz)(x)
                sections = _design_filters(rate_hz, CAPE_V1, notch_hz)
                plain = signal.sosfiltfilt(sections, at_400(recording, x), axis=1, padtype="even", padlen=800)
                inside.append(largest_uv(window(found), window(plain)))
                whole.append(largest_uv(found, plain))
                otherwise.append(np.mean(np.rint(1000 * found) != np.rint(1000 * plain)))
                nearest = min(nearest, float(np.abs(np.abs(1000 * found % 1) - 0.5).min()))
        share = f"{100 * np.mean(otherwise):.2g} %"
        print(f"| {folder} | {len(whole)} | {spread(inside)} | {spread(whole)} | {share} | {nearest:.0e} |")


def measure_padding(root: Path) -> None:
    """Cut strips from recordings of at least 30 s; the truth is the whole recording filtered at once."""
    whole = []
    for folder in ("cinc2021/CPSC2018", "cinc2021/CPSC2018-Extra", "ptb_diagnostic"):
        for recording in recordings(root / folder):
            if recording.duration_s >= 30 and np.isfinite(recording.signal_mv).all():
                x = at_400(recording, select(recording.signal_mv, recording.leads))
                whole.append((x, filtfilt(x, padtype="even", padlen=1600)))
    for length, seconds in ((4000, "10"), (2934, "7.335")):
        cuts = [
            (x[:, start : start + length], truth[:, start : start + length])
            for x, truth in whole
            for start in range(2000, x.shape[1] - length - 2000 + 1, length)
        ]
        print(f"\n### Padding, strips of {seconds} s: {len(cuts)} from {len(whole)} recordings\n")
        print("| padding | first second | first 7 s | window |\n|---|---|---|---|")
        for name, padding in PADDINGS.items():
            found = [(filtfilt(cut, **padding), truth) for cut, truth in cuts]
            first = spread(largest_uv(y[:, :400], truth[:, :400]) for y, truth in found)
            seven = spread(largest_uv(y[:, :2800], truth[:, :2800]) for y, truth in found)
            print(f"| {name} | {first} | {seven} | {spread(largest_uv(window(y), window(t)) for y, t in found)} |")


def measure_ptb_xl(root: Path) -> None:
    strips = [(r, x) for r in recordings(root / "ptb_xl/records500") if (x := native(r)) is not None]
    even = {"padtype": "even", "padlen": 800}
    rows: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    for recording, x in strips:
        y = at_400(recording, x)
        plain = filtfilt(y, **even)
        stored = make_strip(recording).samples / 1000
        note("storage, int16 at 1 uV", largest_uv(window(stored), window(plain)))
        native_sos = signal.butter(2, (0.5, 100), "bandpass", fs=500, output="sos")
        first_filtered = signal.sosfiltfilt(native_sos, x, axis=1, padtype="even", padlen=1000)
        note("filter at 500 Hz, then resample", largest_uv(window(at_400(recording, first_filtered)), window(plain)))
        same_band = signal.butter(2, (0.5, 100), "bandpass", fs=400, output="sos")
        note("2 s or 4 s of padding", largest_uv(window(plain), window(filtfilt(y, padtype="even", padlen=1600))))
        note(
            "8 s cut from 10 s: inner 5 s",
            largest_uv(filtfilt(y[:, 400:3600], **even)[:, 600:2600], plain[:, 1000:3000]),
        )
        note("forward in time or backward", largest_uv(window(filtfilt(y[:, ::-1], **even)[:, ::-1]), window(plain)))
        for q in (10, 20, 30, 50):
            sos = np.vstack([same_band, signal.tf2sos(*signal.iirnotch(50, q, fs=400))])
            notched = signal.sosfiltfilt(sos, y, axis=1, **even)
            note(f"notch at 50 Hz, Q = {q}, no hum to take", largest_uv(window(notched), window(plain)))
        note("offset (largest mean of a lead, uV)", float(1000 * np.abs(y.mean(axis=1)).max()))
    print(
        f"\n### PTB-XL, {len(strips)} recordings at 500 Hz, window\n\n| what | uV: median / 95 % / largest |\n|---|---|"
    )
    for name, values in rows.items():
        print(f"| {name} | {spread(values)} |")


def measure_slow_and_fast_files(root: Path) -> None:
    """PTB-XL comes at 100 and at 500 Hz: how far apart are the strips of one ECG, and why."""
    apart, same_band, aligned, shifts_ms = [], [], [], []
    frequencies_hz = np.fft.rfftfreq(CAPE_V1.window_samples, 1 / 400)
    low = (frequencies_hz > 2) & (frequencies_hz < 20)
    for slow in recordings(root / "ptb_xl/records100"):
        (path,) = (root / "ptb_xl/records500").rglob(f"{slow.recording_id[:5]}_hr.hea")
        fast = next(iter(wfdb.read(path)))
        a, b, b45 = (
            window(_strip_filter(r.n_samples, _rate_ratio(r.rate_hz, CAPE_V1), rate_hz, CAPE_V1, None)(r.leads_mv()))
            for r, rate_hz in ((slow, 100.0), (fast, 500.0), (fast, 100.0))
        )
        cross = (np.fft.rfft(a) * np.fft.rfft(b45).conj())[:, low].sum(axis=0)
        delays_s = np.linspace(-0.02, 0.02, 1601)
        turn = np.exp(2j * np.pi * np.outer(delays_s, frequencies_hz[low]))
        delay_s = delays_s[(turn @ cross).real.argmax()]
        moved = np.fft.irfft(np.fft.rfft(a) * np.exp(2j * np.pi * frequencies_hz * delay_s), a.shape[1])
        shifts_ms.append(-1000 * delay_s)
        apart.append(largest_uv(a, b))
        same_band.append(largest_uv(a, b45))
        aligned.append(largest_uv(moved[:, 100:-100], b45[:, 100:-100]))
    print(f"\n### PTB-XL at 100 Hz against 500 Hz, {len(apart)} pairs, window\n\n| what | uV |\n|---|---|")
    print(f"| as the recipe makes them | {spread(apart)} |\n| both with the 45 Hz edge | {spread(same_band)} |")
    print(f"| and the shift undone | {spread(aligned)} |")
    print(f"\nThe 100 Hz files are early by {min(shifts_ms):.2f} to {max(shifts_ms):.2f} ms.")


def measure_code(root: Path) -> None:
    difference, reverse = [], []
    for recording in recordings(root / "code15"):
        x = native(recording)
        if x is None or x.shape[1] >= 4000:
            continue
        y = filtfilt(x, padtype="even", padlen=800)
        difference.append(largest_uv(window(y), window(filtfilt(x, padtype="even", padlen=1600))))
        reverse.append(largest_uv(window(y), window(filtfilt(x[:, ::-1], padtype="even", padlen=800)[:, ::-1])))
    print(f"\n### CODE-15, {len(difference)} strips shorter than 10 s, window\n\n| what | uV |\n|---|---|")
    print(f"| 2 s or 4 s of padding | {spread(difference)} |\n| forward in time or backward | {spread(reverse)} |")


def measure_flags(root: Path) -> None:
    print("\n### Flags, and hum of at least 6 dB\n")
    print("| source | strips | refused | " + " | ".join(str(flag.name) for flag in Flag) + " |")
    print("|---" * (len(Flag) + 3) + "|")
    for folder in ("ptb_xl/records500", "code15", "cinc2021", "sami_trop", "mimic_iv_ecg"):
        flags, refused = [], 0
        for recording in recordings(root / folder):
            try:
                flags.append(make_strip(recording).quality.flags)
            except EcgError:
                refused += 1
        counts = " | ".join(str(sum(bool(f & flag) for f in flags)) for flag in Flag)
        print(f"| {folder} | {len(flags)} | {refused} | {counts} |")


def measure_cost(root: Path) -> None:
    recording = next(recordings(root / "ptb_xl/records500"))

    def fresh() -> Recording:
        recording.__dict__.pop("signal_mv", None)  # so that integers are turned into mV each time
        return recording

    steps: dict[str, Callable[[], object]] = {
        "chain without quality": lambda: make_strip(fresh(), CAPE_V1, 50, with_quality=False),
        "chain with quality": lambda: make_strip(fresh(), CAPE_V1, 50),
        "mains score of one strip": lambda: quality.mains_score(quality.power_density(stored, 400.0), 50.0),
    }
    stored = make_strip(recording).samples / 1000
    print("\n### Cost, 12 leads of 5000 samples, one thread\n\n| what | ms: best / median of 300 |\n|---|---|")
    for name, step in steps.items():
        times = []
        for _ in range(300):
            start = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - start))
        print(f"| {name} | {min(times):.2f} / {np.median(times):.2f} |")


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    measure_one_transform(root)
    measure_padding(root)
    measure_ptb_xl(root)
    measure_slow_and_fast_files(root)
    measure_code(root)
    measure_flags(root)
    measure_cost(root)


if __name__ == "__main__":
    main()
