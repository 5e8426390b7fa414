"""WFDB headers that declare what cannot be."""

from pathlib import Path

import numpy as np

DATA = np.arange(9, dtype="<i2").tobytes()
SIGNAL = "r.dat 16 1000(0)/mV 16 0 0 36 0 I"


def record(folder: Path, head: str = "r 1 500 9", *signals: str, data: bytes = DATA) -> Path:
    (folder / "r.dat").write_bytes(data)
    path = folder / "r.hea"
    path.write_text("".join(f"{line}\n" for line in [head, *(signals or [SIGNAL])]))
    return path


def sparse(folder: Path, size: int) -> None:
    with (folder / "r.dat").open("wb") as file:
        file.truncate(size)


def case_samples_5e9(folder: Path) -> Path:
    return record(folder, "r 1 500 5000000000")


def case_samples_not_there(folder: Path) -> Path:
    return record(folder, "r 9 500 7000000", *[SIGNAL.replace("16", "32", 1)] * 9)


def case_samples_there_as_holes(folder: Path) -> Path:
    path = record(folder, "r 20 1000 14000000", *[SIGNAL] * 20)
    sparse(folder, 20 * 2 * 14_000_000)
    return path


def case_samples_of_no_declared_length(folder: Path) -> Path:
    path = record(folder, "r 20 1000", *[SIGNAL] * 20)
    sparse(folder, 20 * 2 * 14_000_000)
    return path


def case_signals_65(folder: Path) -> Path:
    return record(folder, "r 65 500 9", *[SIGNAL] * 65)


def case_signals_none(folder: Path) -> Path:
    return record(folder, "r 0 500 9")


def case_rate_negative(folder: Path) -> Path:
    return record(folder, "r 1 -500 9")


def case_rate_zero(folder: Path) -> Path:
    return record(folder, "r 1 0 9")


def case_rate_inf(folder: Path) -> Path:
    return record(folder, "r 1 inf 9")


def case_rate_nan(folder: Path) -> Path:
    return record(folder, "r 1 nan 9")


def case_rate_too_large_for_a_float(folder: Path) -> Path:
    return record(folder, "r 1 1e999 9")


def case_rate_that_overflows_when_multiplied(folder: Path) -> Path:
    return record(folder, "r 1 1e308 3", SIGNAL.replace("16", "16x3", 1))


def case_rate_that_overflows_in_segments(folder: Path) -> Path:
    record(folder)
    path = folder / "whole.hea"
    path.write_text("whole/2 1 1e308 18\nr 9\nr 9\n")
    return path


def case_rate_of_one_sample_in_a_million_years(folder: Path) -> Path:
    return record(folder, "r 1 1e-308")


def case_gain_inf(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("1000(0)", "inf"))


def case_gain_too_large_for_a_float(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("1000(0)", "1e999"))


def case_gain_baseline_as_a_float(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("(0)", "(1E3)"))


def case_gain_zero_and_another_first_value(folder: Path) -> Path:
    return record(folder, "r 1 500 9", "r.dat 16 0 16 0 5 36 0 I")


def case_samples_per_frame_1e9(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "16x1000000000", 1))


def case_samples_per_frame_999999(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "16x999999", 1))


def case_offset_beyond_the_end(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "16+100", 1))


def case_offset_of_petabytes(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "16+999999999999999", 1))


def case_skew_negative(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "16:-5", 1))


def case_skew_and_a_wrong_sum(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "16:999999999", 1).replace(" 36 ", " 37 "))


def case_format_unknown(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "99", 1))


def case_two_formats_in_one_file(folder: Path) -> Path:
    return record(folder, "r 2 500 9", SIGNAL, SIGNAL.replace("16", "212", 1))


def case_signal_line_missing(folder: Path) -> Path:
    return record(folder, "r 2 500 9")


def case_signal_line_too_many(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL, SIGNAL)


def case_forty_thousand_signal_lines(folder: Path) -> Path:
    return record(folder, "r 1 500 9", *[SIGNAL] * 30_000)


def case_header_of_a_mebibyte_and_a_byte(folder: Path) -> Path:
    path = record(folder)
    with path.open("ab") as file:
        file.write(b"#".ljust((1 << 20) + 1 - path.stat().st_size))
    return path


def case_one_endless_line(folder: Path) -> Path:
    return record(folder, "r 1 " + "1e" * 400_000)


def case_one_endless_time(folder: Path) -> Path:
    return record(folder, "r 1 500 9 " + "1:" * 400_000)


def case_bom_of_utf_16(folder: Path) -> Path:
    path = record(folder)
    path.write_bytes(path.read_text().encode("utf-16"))
    return path


def case_cut_inside_the_last_signal_line(folder: Path) -> Path:
    path = record(folder)
    path.write_text(path.read_text().rstrip("\n"))
    return path


def case_segments_that_hold_each_other(folder: Path) -> Path:
    path = folder / "r.hea"
    path.write_text("r/2 1 500 18\nr 9\nr 9\n")
    return path


def case_segments_one_million(folder: Path) -> Path:
    path = folder / "r.hea"
    path.write_text("r/1000000 1 500 9\nr 9\n")
    return path


def case_segments_of_nothing(folder: Path) -> Path:
    path = folder / "r.hea"
    path.write_text("r/2 1 500 18\n~ 9\n~ 9\n")
    return path


def case_segments_longer_than_their_parts(folder: Path) -> Path:
    record(folder)
    path = folder / "whole.hea"
    path.write_text("whole/2 1 500 4000000\nr 2000000\nr 2000000\n")
    return path


def case_flac_that_is_none(folder: Path) -> Path:
    return record(folder, "r 1 500 9", SIGNAL.replace("16", "516", 1))


def case_flac_of_a_billion_samples(folder: Path) -> Path:
    return record(folder, "r 1 100000 1000000000", SIGNAL.replace("16", "516", 1))


def case_matlab_preamble_of_another_shape(folder: Path) -> Path:
    preamble = np.array([30, 1, 2**31 - 1, 0, 4], "<i4").tobytes() + b"val\0"
    (folder / "r.mat").write_bytes(preamble + DATA)
    return record(folder, "r 1 500 9", SIGNAL.replace("r.dat 16", "r.mat 16+24"))


def case_difference_format_beyond_32_bits(folder: Path) -> Path:
    first = "r.dat 8 1000(0)/mV 16 0 2147483647 36 0 I"
    return record(folder, "r 1 500 9", first, data=b"\x7f" * 9)
