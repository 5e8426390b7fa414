"""CardioSoft files written by an adversary: each must be refused at once and cheaply."""

from pathlib import Path

STRIP = '<SampleRate units="Hz">500</SampleRate><Resolution units="uVperLsb">5</Resolution>'


def resting(count: str, *lists: str, head: str = STRIP) -> str:
    waveforms = "".join(f'<WaveformData lead="V{place}">{text}</WaveformData>' for place, text in enumerate(lists))
    return f"<StripData>{head}<ChannelSampleCountTotal>{count}</ChannelSampleCountTotal>{waveforms}</StripData>"


def disclosed(text: str, order: str = "I,2,3", head: str = STRIP) -> str:
    data = f"<LeadOrder>{order}</LeadOrder><FullDisclosureData>{text}</FullDisclosureData>"
    return f"<FullDisclosure>{head}{data}</FullDisclosure>"


def written(folder: Path, *parts: str, before: str = '<?xml version="1.0" encoding="ISO-8859-1"?>') -> Path:
    path = folder / "cardiosoft.xml"
    path.write_text(f"{before}<CardiologyXML>{''.join(parts)}</CardiologyXML>", "iso-8859-1")
    return path


def case_billion_laughs(folder: Path) -> Path:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return written(folder, resting("3", "&l9;"), before=f'<!DOCTYPE CardiologyXML [<!ENTITY l0 "1,">{levels}]>')


def case_external_dtd_with_an_entity(folder: Path) -> Path:
    return written(folder, resting("1", "&one;"), before='<!DOCTYPE CardiologyXML SYSTEM "http://127.0.0.1:9/x.dtd">')


def case_nested_200000_deep(folder: Path) -> Path:
    return written(folder, "<Strip>" * 200_000)


def case_a_trillion_samples_declared(folder: Path) -> Path:
    return written(folder, resting("1000000000000", "1,2,3"))


def case_more_samples_declared_than_written(folder: Path) -> Path:
    return written(folder, resting("5000000", "1,2,3"))


def case_less_than_no_samples(folder: Path) -> Path:
    return written(folder, resting("-1", "1,2,3"))


def case_65_leads(folder: Path) -> Path:
    return written(folder, resting("3", *["1,2,3"] * 65))


def case_a_list_of_commas(folder: Path) -> Path:
    return written(folder, resting("1000000", "," * 1_000_000))


def case_a_list_with_holes(folder: Path) -> Path:
    return written(folder, resting("3", "1,2,,3"))


def case_one_number_of_a_million_digits(folder: Path) -> Path:
    return written(folder, resting("1", "9" * 1_000_000))


def case_another_unit(folder: Path) -> Path:
    return written(folder, resting("3", "1,2,3", head=STRIP.replace("uVperLsb", "mVperLsb")))


def case_a_rate_of_nothing(folder: Path) -> Path:
    return written(folder, resting("3", "1,2,3", head=STRIP.replace("500", "0")))


def case_empty_waveforms(folder: Path) -> Path:
    return written(folder, resting("0", "", ""))


def case_segments_only(folder: Path) -> Path:
    return written(folder, "<StripData><Strip><WaveformData lead='I'>1,2,3</WaveformData></Strip></StripData>")


def case_full_disclosure_of_part_of_a_second(folder: Path) -> Path:
    return written(folder, disclosed("1," * 1499))


def case_full_disclosure_of_a_million_leads(folder: Path) -> Path:
    return written(folder, disclosed("1,2,3", order="I," * 1_000_000 + "I"))


def case_full_disclosure_of_a_million_seconds(folder: Path) -> Path:
    return written(folder, disclosed("0," * 1_000_000, order="I", head=STRIP.replace("500", "1")))


def case_full_disclosure_of_a_broken_rate(folder: Path) -> Path:
    return written(folder, disclosed("0," * 3000, head=STRIP.replace("500", "499.5")))
