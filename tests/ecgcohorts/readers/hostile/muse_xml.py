"""MUSE files whose declared numbers and payloads do not belong together."""

import base64
from pathlib import Path

import numpy as np

COUNT = 60


def lead(name: str = "I", **changes: str | None) -> str:
    values: dict[str, str | None] = {
        "LeadID": name,
        "LeadSampleCountTotal": str(COUNT),
        "LeadByteCountTotal": str(2 * COUNT),
        "LeadAmplitudeUnitsPerBit": "4.88",
        "LeadAmplitudeUnits": "MICROVOLTS",
        "WaveFormData": base64.b64encode(np.arange(COUNT, dtype="<i2").tobytes()).decode(),
    }
    texts = (f"<{tag}>{text}</{tag}>" for tag, text in (values | changes).items() if text is not None)
    return f"<LeadData>{''.join(texts)}</LeadData>"


def written(folder: Path, *leads: str, rate: str = "500", exponent: str = "0", kind: str = "Rhythm") -> Path:
    head = f"<WaveformType>{kind}</WaveformType><SampleBase>{rate}</SampleBase>"
    head += f"<SampleExponent>{exponent}</SampleExponent>"
    path = folder / "muse.xml"
    path.write_text(f"<RestingECG><Waveform>{head}{''.join(leads)}</Waveform></RestingECG>")
    return path


def case_base64_with_junk(folder: Path) -> Path:
    good = base64.b64encode(bytes(2 * COUNT)).decode()
    return written(folder, lead(WaveFormData=good[:40] + "!$%" + good[43:]))


def case_base64_of_other_letters(folder: Path) -> Path:
    return written(folder, lead(WaveFormData="\u0410\u0412" * 80))


def case_base64_with_padding_inside(folder: Path) -> Path:
    return written(folder, lead(WaveFormData="AAA=" * 60))


def case_empty_waveform(folder: Path) -> Path:
    return written(folder)


def case_lead_without_samples(folder: Path) -> Path:
    return written(folder, lead(WaveFormData=""))


def case_lead_without_waveform_element(folder: Path) -> Path:
    return written(folder, lead(WaveFormData=None))


def case_a_trillion_samples_declared(folder: Path) -> Path:
    return written(folder, lead(LeadSampleCountTotal="1000000000000", LeadByteCountTotal="2000000000000"))


def case_minus_one_sample_declared(folder: Path) -> Path:
    return written(folder, lead(LeadSampleCountTotal="-1"))


def case_declared_bytes_differ(folder: Path) -> Path:
    return written(folder, lead(LeadByteCountTotal="118"))


def case_leads_of_unequal_length(folder: Path) -> Path:
    short = base64.b64encode(bytes(20)).decode()
    other = lead("II", LeadSampleCountTotal="10", LeadByteCountTotal="20", WaveFormData=short)
    return written(folder, lead(), other)


def case_sixty_five_leads(folder: Path) -> Path:
    return written(folder, *(lead(f"L{place}") for place in range(65)))


def case_rate_zero(folder: Path) -> Path:
    return written(folder, lead(), rate="0")


def case_rate_not_a_number(folder: Path) -> Path:
    return written(folder, lead(), rate="nan")


def case_rate_by_a_huge_exponent(folder: Path) -> Path:
    return written(folder, lead(), exponent="999999999")


def case_gain_zero(folder: Path) -> Path:
    return written(folder, lead(LeadAmplitudeUnitsPerBit="0"))


def case_gain_infinite(folder: Path) -> Path:
    return written(folder, lead(LeadAmplitudeUnitsPerBit="inf"))


def case_gain_without_unit(folder: Path) -> Path:
    return written(folder, lead(LeadAmplitudeUnits=None))


def case_gain_in_an_unknown_unit(folder: Path) -> Path:
    return written(folder, lead(LeadAmplitudeUnits="FURLONGS"))


def case_another_checksum(folder: Path) -> Path:
    return written(folder, lead(LeadDataCRC32="1"))


def case_a_number_of_a_million_digits(folder: Path) -> Path:
    return written(folder, lead(LeadDataCRC32="9" * 1_000_000))


def case_samples_that_are_packed(folder: Path) -> Path:
    return written(folder, lead(LeadSampleSize="1"))


def case_two_rhythms(folder: Path) -> Path:
    path = written(folder, lead())
    text = path.read_text()
    whole = text[text.index("<Waveform>") : text.index("</RestingECG>")]
    path.write_text(f"<RestingECG>{whole}{whole}</RestingECG>")
    return path


def case_median_only(folder: Path) -> Path:
    return written(folder, lead(), kind="Median")


def case_ten_thousand_waveforms(folder: Path) -> Path:
    path = written(folder, lead(), kind="")
    text = path.read_text()
    whole = text[text.index("<Waveform>") : text.index("</RestingECG>")]
    path.write_text(f"<RestingECG>{whole * 10_000}</RestingECG>")
    return path
