"""The header grammar: what it reads, what it tolerates by name, what it refuses. Source: header(5)."""

from datetime import datetime

import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.wfdb import header as wh

LINE = "r.dat 16 1000(0)/mV 16 0 5 -7 0 I"


def parse(record: str = "r 1 500 10", *lines: str) -> wh.Header:
    return wh.Header.parse("".join(f"{line}\n" for line in [record, *(lines or [LINE])]).encode(), "r.hea")


def signal(line: str) -> wh.Signal:
    return parse("r 1 500 10", line).signals[0]


def refused(record: str = "r 1 500 10", *lines: str) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        parse(record, *lines)
    assert caught.value.where == "r.hea"
    return caught.value


@pytest.mark.parametrize(
    ("text", "rate_hz"),
    [("360", 360.0), ("360.", 360.0), ("3.6e2", 360.0), ("1e3", 1000.0), (".5E3", 500.0), ("257/1(0)", 257.0), ("250/-2.5", 250.0)],
)  # fmt: skip
def test_every_way_to_write_a_rate(text: str, rate_hz: float) -> None:
    assert parse(f"r 1 {text} 10").rate_hz == rate_hz
    assert parse(f"r 1 {text} 10").n_frames == 10


def test_a_missing_rate_is_250_and_a_missing_length_unknown() -> None:
    assert (parse("r 1").rate_hz, parse("r 1").n_frames) == (250.0, 0)


@pytest.mark.parametrize("text", ["-5", "0", "inf", "nan", "1e999", "5OO", "500Hz", "0x10", "500/", "٣٦٠"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    assert refused(f"r 1 {text} 10").reason is Reason.HEADER


@pytest.mark.parametrize(
    ("text", "gain", "baseline", "unit"),
    [
        ("200", 200.0, 1024.0, "mV"),  # baseline missing: ADC zero
        ("1000.0(0)/mV", 1000.0, 0.0, "mV"),
        ("1000(0)", 1000.0, 0.0, "mV"),
        ("1E3/mV", 1000.0, 1024.0, "mV"),
        ("1.052e+04/mV", 10520.0, 1024.0, "mV"),
        ("-5.5(-12)/uV", -5.5, -12.0, "uV"),
        ("1(1)/mv", 1.0, 1.0, "mv"),
        ("20/mm/s", 20.0, 1024.0, "mm/s"),
    ],
)
def test_every_way_to_write_a_gain(text: str, gain: float, baseline: float, unit: str) -> None:
    found = signal(f"r.dat 212 {text} 11 1024 995 -22131 0 MLII")
    assert (found.gain, found.baseline, found.unit) == (gain, baseline, unit)
    assert (found.initial, found.checksum, found.name) == (995, -22131, "MLII")


@pytest.mark.parametrize("text", ["inf/mV", "nan", "1e999/mV", "200(1e3)/mV", "200(5)mV", "200(", "mV", "1,5"])
def test_a_gain_that_is_none_is_refused(text: str) -> None:
    assert refused("r 1 500 10", f"r.dat 16 {text} 16 0 5 -7 0 I").reason is Reason.HEADER


def test_a_baseline_after_a_space_is_not_swallowed_as_a_name() -> None:
    assert refused("r 1 500 10", "r.dat 16 200 (5)/mV 16 0 5 -7 0 I").reason is Reason.HEADER


@pytest.mark.parametrize("text", ["r.dat 16", "r.dat 16 0", "r.dat 16 0/mV 12 0 1 2 0 I"])
def test_a_gain_that_is_missing_or_zero_is_200_and_noted(text: str) -> None:
    assert signal(text).gain == 200.0
    assert parse("r 1 500 10", text).notes == (wh.ASSUMED_GAIN,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16", (16, 1, 0, 0)),
        ("16+24", (16, 1, 0, 24)),
        ("16x1+24", (16, 1, 0, 24)),
        ("212x4", (212, 4, 0, 0)),
        ("16:5", (16, 1, 5, 0)),
        ("80x2:7+512", (80, 2, 7, 512)),
    ],
)
def test_every_format_cluster(text: str, expected: tuple[int, ...]) -> None:
    found = signal(f"r.dat {text} 200 12 0 1 2 0 I")
    assert (found.format, found.per_frame, found.skew, found.offset) == expected


@pytest.mark.parametrize(
    "text", ["16x0", "16:-5", "16+-24", "16 +24", "x16", "16x1000000000", "1600", "16x2x2", "16:", "١٦"]
)
def test_a_format_cluster_that_is_none_is_refused(text: str) -> None:
    assert refused("r 1 500 10", f"r.dat {text} 200 12 0 1 2 0 I").reason is Reason.HEADER


def test_a_signal_line_may_end_after_any_field_and_its_name_may_hold_anything() -> None:
    tokens = ["r.dat", "16", "200/mV", "12", "7", "-3", "9", "0", "sig 0, fmt 8"]
    for count in range(2, 9):
        found = signal(" ".join(tokens[:count]))
        assert found.adc_zero == (7 if count > 4 else 0)
        assert found.initial == (-3 if count > 5 else None)
        assert found.checksum == (9 if count > 6 else None)
        assert found.name == ""
    assert signal(" ".join(tokens)).name == "sig 0, fmt 8"


@pytest.mark.parametrize(
    "tail", ["16 0 5 -7 x I", "1e3 0", "16 0.5 5", "16 0 5 9999999999999999 0 I", "16 0 NaN 7 0 I"]
)
def test_details_that_are_no_whole_numbers_are_refused(tail: str) -> None:
    assert refused("r 1 500 10", f"r.dat 16 200 {tail}").reason is Reason.HEADER


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("15:46:00 10/02/2187", datetime(2187, 2, 10, 15, 46)),
        ("9:05:01.250 1/12/1999", datetime(1999, 12, 1, 9, 5, 1, 250000)),
        ("46:30 10/02/2187", datetime(2187, 2, 10, 0, 46, 30)),
        ("05-May-2020 09:49:17", datetime(2020, 5, 5, 9, 49, 17)),
        ("12:00:00", None),
    ],
)
def test_base_time_and_date(text: str, moment: datetime | None) -> None:
    header = parse(f"r 1 500 10 {text}")
    assert header.acquired_at == moment
    assert header.notes == ((wh.MONTH_NAME_DATE,) if "May" in text else ())


@pytest.mark.parametrize(
    "text", ["25:00:00 10/02/2187", "10:00:00 31/02/2001", "10:00:00 01/01/99", "05-Mai-2020 09:49:17"]
)
def test_an_impossible_moment_is_noted_and_ignored(text: str) -> None:
    header = parse(f"r 1 500 10 {text}")
    assert header.acquired_at is None
    assert header.notes[-1] == wh.NO_DATE


@pytest.mark.parametrize(
    "text",
    [
        *("2006", "2020-05-12", "2020-05-05 09:49:17", "2020/05/12", "20200512", "12/05/2020", "12.05.2020 10:00:00"),
        *("12:00:001", "12:00:00 10/02/2187 more", "12:00:00 2020-05-12", "yesterday", "None", "-", "0x1"),
    ],
)
def test_what_is_no_moment_is_noted_and_ignored(text: str) -> None:
    """No sample depends on it, and the order of day and month is not guessed."""
    header = parse(f"r 1 500 10 {text}")
    assert (header.acquired_at, header.notes) == (None, (wh.UNREAD_DATE,))


def test_what_is_too_long_for_a_date_is_refused() -> None:
    assert parse(f"r 1 500 10 {'x' * wh.MAX_DATE}").acquired_at is None
    assert refused(f"r 1 500 10 {'x' * (wh.MAX_DATE + 1)}").reason is Reason.HEADER


def test_a_signal_line_that_slipped_into_the_record_line_is_missed() -> None:
    assert refused(f"r 2 500 10 {LINE}", LINE).reason is Reason.HEADER


def test_tolerated_quirks_are_named() -> None:
    header = wh.Header.parse(b"\xef\xbb\xbfE07835.mat 1 500 10 05-May-2020 09:49:17\r\n" + LINE.encode() + b"\r\n", "")
    assert header.record_name == "E07835"
    assert set(header.notes) == {wh.BYTE_ORDER_MARK, wh.MAT_NAME, wh.MONTH_NAME_DATE}


def test_comments_become_fields_wherever_they_stand() -> None:
    text = (
        "# first: 1\n\nr 1 500 10\n#Age: NaN\n"
        + LINE
        + "\n#free text\n# <subject_id>: 10019777\n#Dx: 1,2,\n# Age: 74\n"
    )
    header = wh.Header.parse(text.encode(), "")
    assert header.fields == {"first": "1", "Age": "74", "subject_id": "10019777", "Dx": "1,2,"}


def test_several_tagged_fields_share_a_line() -> None:
    header = parse("r 1 500 10", LINE, "# <age>: 25  <sex>: M  <diagnoses>: (none)  <medications>: a: b")
    assert header.fields == {"age": "25", "sex": "M", "diagnoses": "(none)", "medications": "a: b"}


def test_comments_of_incart_whose_last_tag_has_no_colon() -> None:
    lines = "# <age>: 65 <sex>: F <diagnoses> Coronary artery disease, hypertension", "# patient 1", "# PVCs, noise"
    found = {"age": "65", "sex": "F", "diagnoses": "Coronary artery disease, hypertension", "patient": "1"}
    assert parse("r 1 500 10", LINE, *lines).fields == found
    assert parse("r 1 500 10", LINE, "# <age>: 65 <sex>: M <diagnoses>").fields["sex"] == "M"


@pytest.mark.parametrize("text", ["<b> bold", "<diagnoses> none", "see 5 patients", "patient one", "patient 1 2"])
def test_free_text_stays_out_whatever_brackets_and_numbers_it_has(text: str) -> None:
    assert parse("r 1 500 10", LINE, f"# {text}").fields == {}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_micro_sign_survives_either_encoding(encoding: str) -> None:
    header = wh.Header.parse("r 1 500 10\nr.dat 16 5/µV 12 0 1 2 0 I\n# Ärztin: Ö\n".encode(encoding), "")
    assert header.signals[0].unit == "µV"
    assert header.fields == {"Ärztin": "Ö"}


@pytest.mark.parametrize("name", ["../x.dat", "/etc/passwd", "C:\\x.dat", "c:x.dat", "http://h/x.dat", "-", "-x.dat", "~x.dat",
                                  "a/b.dat", "..", "x..dat", "\\\\host\\x", "x\u202e.dat"])  # fmt: skip
def test_a_file_name_with_a_path_is_refused(name: str) -> None:
    assert refused("r 1 500 10", f"{name} 16 200 12 0 1 2 0 I").reason is Reason.PATH
    assert refused("r/1 1 500 10", f"{name} 10").reason is Reason.PATH


@pytest.mark.parametrize(
    ("record", "lines", "reason"),
    [
        ("", (), Reason.HEADER),
        ("r", (), Reason.HEADER),
        ("r x 500 10", (), Reason.HEADER),
        ("r -1 500 10", (), Reason.HEADER),
        ("r 1 500 -10", (), Reason.HEADER),
        ("r 1 500 1e4", (), Reason.HEADER),
        ("00001/00001_medians 1 500 10", (), Reason.HEADER),
        ("r 0 500 10", (), Reason.EMPTY),
        ("r 2 500 10", (), Reason.HEADER),
        ("r 1 500 10", (LINE, LINE), Reason.HEADER),
        ("r 65 500 10", (), Reason.LIMIT),
        ("r 999999 500 10", (), Reason.LIMIT),
        ("r 1 500 5000000000", (), Reason.LIMIT),
        ("r 1 500 7200001", (), Reason.LIMIT),
        ("r 1 1e9 900000000", (), Reason.LIMIT),
        ("r 1 500 10\0", (), Reason.HEADER),
        ("r/0 1 500 10", (), Reason.HEADER),
        ("r/2 1 500 10", ("a 5", "b 6"), Reason.HEADER),
        ("r/1 1 500 10", ("a 5 6",), Reason.HEADER),
        ("r 2 500 10", (LINE, "r.dat 212 200 12 0 1 2 0 II"), Reason.HEADER),
        ("r 2 500 10", (LINE, "r.dat 16+24 200 12 0 1 2 0 II"), Reason.HEADER),
        ("r 3 500 10", (LINE, LINE.replace("r.", "s."), LINE), Reason.HEADER),
    ],
)
def test_a_header_that_contradicts_itself_or_asks_too_much_is_refused(
    record: str, lines: tuple[str, ...], reason: Reason
) -> None:
    assert refused(record, *lines).reason is reason


def test_messages_name_the_line_and_not_the_comments() -> None:
    with pytest.raises(UnreadableRecording) as caught:
        wh.Header.parse(f"# Name: Canary\nr 2 500 10\n{LINE}\nr.dat 16 x\n".encode(), "r.hea")
    assert "line 4" in str(caught.value)
    assert "Canary" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "\r", " "])
def test_a_header_that_ends_inside_a_signal_line_is_truncated(end: str) -> None:
    """Half a gain or half a name would be understood: `1000(0)/mV` or `10`, `V10` or `V1`."""
    with pytest.raises(UnreadableRecording) as caught:
        wh.Header.parse(f"r 1 500 10\n{LINE}{end}".encode(), "r.hea")
    assert caught.value.reason is Reason.TRUNCATED


def test_a_header_that_ends_inside_a_comment_loses_that_comment_only() -> None:
    header = wh.Header.parse(f"r 1 500 10\n{LINE}\n# Sex: F\n# Age: 6".encode(), "r.hea")
    assert header.fields == {"Sex": "F"}
    assert header.notes == (wh.CUT_COMMENT,)
