"""Mortara ELI files written by an adversary: each must be refused at once and cheaply."""

import base64
from pathlib import Path

CHANNEL = {
    "NAME": "I",
    "UNITS_PER_MV": "400",
    "SAMPLE_FREQ": "500",
    "BITS": "16",
    "FORMAT": "SIGNED",
    "ENCODING": "BASE64",
    "DURATION": "3",
    "OFFSET": "0",
    "DATA": base64.b64encode(b"\1\0\2\0\3\0").decode(),
}


def channel(**changes: str) -> str:
    attributes = " ".join(f'{name}="{text}"' for name, text in (CHANNEL | changes).items())
    return f"<CHANNEL {attributes}/>"


def written(folder: Path, *parts: str, before: str = "") -> Path:
    path = folder / "mortara.xml"
    path.write_text(f'{before}<ECG ACQUISITION_TIME="20100331140559">{"".join(parts)}</ECG>', "utf-8")
    return path


def case_billion_laughs_in_an_attribute(folder: Path) -> Path:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return written(folder, channel(DATA="&l9;"), before=f'<!DOCTYPE ECG [<!ENTITY l0 "AAAA">{levels}]>')


def case_a_default_attribute_from_a_dtd(folder: Path) -> Path:
    return written(folder, channel(), before='<!DOCTYPE ECG [<!ENTITY a "9"><!ATTLIST CHANNEL OFFSET CDATA "&a;">]>')


def case_nested_200000_deep(folder: Path) -> Path:
    return written(folder, "<CHANNEL>" * 200_000)


def case_a_trillion_samples_declared(folder: Path) -> Path:
    return written(folder, channel(DURATION="1000000000000"))


def case_more_samples_declared_than_encoded(folder: Path) -> Path:
    return written(folder, channel(DURATION="5000000"))


def case_less_than_no_samples(folder: Path) -> Path:
    return written(folder, channel(DURATION="-3"))


def case_65_leads(folder: Path) -> Path:
    return written(folder, *[channel(NAME=f"X{place}") for place in range(65)])


def case_base64_with_junk(folder: Path) -> Path:
    return written(folder, channel(DATA="AQACAA!!MA"))


def case_base64_of_half_a_sample(folder: Path) -> Path:
    return written(folder, channel(DATA=base64.b64encode(b"\1\0\2\0\3").decode()))


def case_ten_megabytes_of_base64(folder: Path) -> Path:
    return written(folder, channel(DATA="A" * 10_000_000))


def case_no_data(folder: Path) -> Path:
    return written(folder, channel(DATA="", DURATION="0"))


def case_an_offset(folder: Path) -> Path:
    return written(folder, channel(OFFSET="1"))


def case_units_of_nothing(folder: Path) -> Path:
    return written(folder, channel(UNITS_PER_MV="0"))


def case_units_beyond_all_gains(folder: Path) -> Path:
    return written(folder, channel(UNITS_PER_MV="1e99"))


def case_a_rate_that_is_no_number(folder: Path) -> Path:
    return written(folder, channel(SAMPLE_FREQ="nan"))


def case_a_rate_without_end(folder: Path) -> Path:
    return written(folder, channel(SAMPLE_FREQ="1e90"))


def case_typical_cycle_only(folder: Path) -> Path:
    return written(folder, f"<TYPICAL_CYCLE>{channel()}</TYPICAL_CYCLE>")
