"""Philips files made to hurt: XML that grows, base64 and LZW that lie, sizes that nothing backs."""

import base64
import struct
from pathlib import Path

XLI = "dataencoding='Base64' compression='XLI'"
LABELS = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
END = "</parsedwaveforms></waveforms></restingecgdata>"


def head(duration_ms: str = "1000", n_leads: int = 12, labels: str = LABELS, rate: str = "500", how: str = "") -> str:
    """Everything before the samples."""
    return (
        "<restingecgdata><documentinfo><documenttype>PhilipsECG</documenttype>"
        "<documentversion>1.04</documentversion></documentinfo><waveforms>"
        f'<parsedwaveforms {how or XLI} numberofleads="{n_leads}" '
        f'leadlabels="{labels}" durationperchannel="{duration_ms}" samplespersecond="{rate}" resolution="5">'
    )


def chunk(codes: list[int], size: int | None = None) -> bytes:
    """LZW codes of ten bits behind a chunk header."""
    bits = "".join(f"{code:010b}" for code in codes)
    packed = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big") if bits else b""
    return struct.pack("<iHh", len(packed) if size is None else size, 1, 0) + packed


def save(folder: Path, text: str, codec: str = "utf-8") -> Path:
    path = folder / "hostile.xml"
    path.write_bytes(text.encode(codec))
    return path


def with_payload(folder: Path, payload: bytes, **options: str | int) -> Path:
    return save(folder, head(**options) + base64.b64encode(payload).decode() + END)


def case_lzw_bomb(folder: Path) -> Path:
    """A full table of runs, then the longest run 30,000 times: 37 kB a lead that would be 23 MB."""
    return with_payload(folder, chunk([0, *range(256, 1023), *[1022] * 30_000]) * 12, duration_ms="31000")


def case_lzw_bomb_as_long_as_it_says(folder: Path) -> Path:
    """As above, and the duration says so too: 12 leads of 11.6 million samples."""
    n_samples = (1 + sum(range(2, 769)) + 768 * 30_000) // 2
    payload = chunk([0, *range(256, 1023), *[1022] * 30_000]) * 12
    return with_payload(folder, payload, duration_ms=str(n_samples), rate="1000")


def case_lzw_code_without_a_string(folder: Path) -> Path:
    return with_payload(folder, chunk([0, 256, 999]) * 16)


def case_lzw_that_ends_at_once(folder: Path) -> Path:
    return with_payload(folder, chunk([1023]) * 16)


def case_chunk_beyond_the_payload(folder: Path) -> Path:
    return with_payload(folder, chunk([0, 256], size=2**31 - 1))


def case_chunk_of_negative_size(folder: Path) -> Path:
    """A reader that adds the size to its place would read the same chunk for ever."""
    return with_payload(folder, chunk([0, 256], size=-8) * 16)


def case_a_million_empty_chunks(folder: Path) -> Path:
    return with_payload(folder, chunk([]) * 1_000_000)


def case_billions_of_samples(folder: Path) -> Path:
    return with_payload(folder, chunk([0, 256]) * 16, duration_ms="5000000000")


def case_duration_beyond_floats(folder: Path) -> Path:
    return with_payload(folder, chunk([0, 256]) * 16, duration_ms="999999999999999e99", rate="999999999999999e99")


def case_rate_that_is_no_number(folder: Path) -> Path:
    return with_payload(folder, chunk([0, 256]) * 16, rate="nan")


def case_resolution_of_zero(folder: Path) -> Path:
    return save(folder, head().replace('resolution="5"', 'resolution="0"') + END)


def case_65_leads(folder: Path) -> Path:
    return save(folder, head(n_leads=65, labels=" ".join(f"L{place}" for place in range(65))) + "AAAA" + END)


def case_a_million_lead_names(folder: Path) -> Path:
    return save(folder, head(n_leads=1_000_000, labels="I " * 1_000_000) + "AAAA" + END)


def case_base64_with_junk(folder: Path) -> Path:
    return save(folder, head() + base64.b64encode(chunk([0, 256]) * 16).decode().replace("A", "A!", 1) + END)


def case_no_samples_at_all(folder: Path) -> Path:
    return save(folder, head() + END)


def case_one_endless_number(folder: Path) -> Path:
    return save(folder, head(how="dataencoding='Plain'") + "7" * 10_000_000 + END)


def case_numbers_without_end(folder: Path) -> Path:
    return save(folder, head(how="dataencoding='Plain'") + "7 " * 4_000_000 + END)


def case_billion_laughs(folder: Path) -> Path:
    laughs = "".join(f'<!ENTITY l{n} "' + f"&l{n - 1};" * 10 + '">' for n in range(1, 10))
    return save(folder, f'<!DOCTYPE restingecgdata [<!ENTITY l0 "ha">{laughs}]>{head()}&l9;{END}')


def case_entity_from_a_file(folder: Path) -> Path:
    return save(folder, f'<!DOCTYPE restingecgdata [<!ENTITY x SYSTEM "file:///etc/hostname">]>{head()}&x;{END}')


def case_200000_nested_tags(folder: Path) -> Path:
    return save(folder, "<restingecgdata>" + "<a>" * 200_000 + "</a>" * 200_000 + "</restingecgdata>")


def case_document_of_65_mib(folder: Path) -> Path:
    path = save(folder, head())
    with path.open("r+b") as file:
        file.truncate(65 << 20)
    return path


def case_utf7(folder: Path) -> Path:
    return save(folder, '<?xml version="1.0" encoding="UTF-7"?>' + head() + "AAAA" + END)
