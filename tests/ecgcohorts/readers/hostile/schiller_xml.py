"""SEMA files written by an adversary: each must be refused at once and cheaply."""

from pathlib import Path

RESOLUTION = (
    "<resolution><samplerate><exponent>1</exponent><value>500</value></samplerate>"
    "<yres><unitperbit>1.0</unitperbit><units>UV</units></yres></resolution>"
)


def channel(text: str, count: str = "3", name: str = "I", coding: str = "COMMASEPARATE") -> str:
    tail = f"<datastype>{coding}</datastype><samplecount>{count}</samplecount>"
    return f"<channel><name>{name}</name><data>{text}</data>{tail}</channel>"


def written(folder: Path, *channels: str, resolution: str = RESOLUTION, before: str = "", times: int = 1) -> Path:
    wave = f"<wavedata><type>ECG_RHYTHMS</type>{resolution}{''.join(channels)}</wavedata>"
    path = folder / "sema.xml"
    path.write_text(f"{before}<SchillerEDI><eventdata><event>{wave * times}</event></eventdata></SchillerEDI>", "utf-8")
    return path


def case_billion_laughs(folder: Path) -> Path:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return written(folder, channel("&l9;"), before=f'<!DOCTYPE SchillerEDI [<!ENTITY l0 "1,">{levels}]>')


def case_a_trillion_samples_declared(folder: Path) -> Path:
    return written(folder, channel("1,2,3", "1000000000000"))


def case_more_samples_declared_than_written(folder: Path) -> Path:
    return written(folder, channel("1,2,3", "5000000"))


def case_fewer_samples_declared_than_written(folder: Path) -> Path:
    return written(folder, channel("1,2,3", "2"))


def case_less_than_no_samples(folder: Path) -> Path:
    return written(folder, channel("1,2,3", "-1"))


def case_leads_of_several_lengths(folder: Path) -> Path:
    return written(folder, channel("1,2,3"), channel("1,2", "2", "II"))


def case_no_leads(folder: Path) -> Path:
    return written(folder)


def case_65_leads(folder: Path) -> Path:
    return written(folder, *[channel("1,2,3", name=f"V{place}") for place in range(65)])


def case_a_lead_without_name(folder: Path) -> Path:
    return written(folder, channel("1,2,3", name=""))


def case_a_list_of_commas(folder: Path) -> Path:
    return written(folder, channel("," * 1_000_000, "1000000"))


def case_one_number_of_a_million_digits(folder: Path) -> Path:
    return written(folder, channel("9" * 1_000_000, "1"))


def case_another_coding(folder: Path) -> Path:
    return written(folder, channel("AQID", coding="BASE64"))


def case_another_unit(folder: Path) -> Path:
    return written(folder, channel("1,2,3"), resolution=RESOLUTION.replace("UV", "MMHG"))


def case_a_step_of_nothing(folder: Path) -> Path:
    return written(folder, channel("1,2,3"), resolution=RESOLUTION.replace("1.0", "0"))


def case_a_rate_of_nothing(folder: Path) -> Path:
    return written(folder, channel("1,2,3"), resolution=RESOLUTION.replace("500", "0"))


def case_a_rate_with_an_exponent(folder: Path) -> Path:
    return written(folder, channel("1,2,3"), resolution=RESOLUTION.replace(">1<", ">3<"))


def case_two_rhythms(folder: Path) -> Path:
    return written(folder, channel("1,2,3"), times=2)
