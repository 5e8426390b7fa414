"""Annotated ECGs written by an adversary: each must be refused at once and cheaply."""

from pathlib import Path

NAMESPACES = 'xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
INCREMENT = '<increment value="0.002" unit="s"/>'


def sequence(code: str, kind: str, inside: str) -> str:
    value = f'<value xsi:type="{kind}">{inside}</value>'
    return f'<component><sequence><code code="{code}"/>{value}</sequence></component>'


def lead(
    digits: str, name: str = "I", amounts: str = '<origin value="0" unit="uV"/><scale value="5" unit="uV"/>'
) -> str:
    return sequence(f"MDC_ECG_LEAD_{name}", "SLIST_PQ", f"{amounts}<digits>{digits}</digits>")


def series(*leads: str, increment: str = INCREMENT) -> str:
    time = sequence("TIME_RELATIVE", "GLIST_PQ", f'<head value="0" unit="s"/>{increment}')
    inner = f"<component><sequenceSet>{time}{''.join(leads)}</sequenceSet></component>"
    return f'<component><series><code code="RHYTHM"/>{inner}</series></component>'


def written(folder: Path, *parts: str, before: str = "", encoding: str = "utf-8") -> Path:
    path = folder / "aecg.xml"
    path.write_bytes(f"{before}<AnnotatedECG {NAMESPACES}>{''.join(parts)}</AnnotatedECG>".encode(encoding))
    return path


def case_billion_laughs(folder: Path) -> Path:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return written(folder, series(lead("&l9;")), before=f'<!DOCTYPE AnnotatedECG [<!ENTITY l0 "1 ">{levels}]>')


def case_quadratic_blow_up(folder: Path) -> Path:
    entity = f'<!DOCTYPE AnnotatedECG [<!ENTITY a "{"1 " * 50_000}">]>'
    return written(folder, series(lead("&a;" * 5000)), before=entity)


def case_external_entity_of_a_file(folder: Path) -> Path:
    return written(folder, series(lead("&a;")), before='<!DOCTYPE AnnotatedECG [<!ENTITY a SYSTEM "/etc/hostname">]>')


def case_external_entity_of_an_address(folder: Path) -> Path:
    entity = '<!DOCTYPE AnnotatedECG [<!ENTITY a SYSTEM "http://127.0.0.1:9/a">]>'
    return written(folder, series(lead("&a;")), before=entity)


def case_nested_200000_deep(folder: Path) -> Path:
    return written(folder, "<component>" * 200_000)


def case_derived_series_inside_themselves(folder: Path) -> Path:
    return written(folder, "<component><series>" + "<derivation><derivedSeries>" * 1000)


def case_document_of_65_mib(folder: Path) -> Path:
    path = written(folder)
    with path.open("r+b") as file:
        file.truncate(65 << 20)
    return path


def case_a_comment_of_20_mib(folder: Path) -> Path:
    return written(folder, f"<!--{'-A' * (10 << 20)}-->", series(lead("1 2")))


def case_encoding_that_is_not_allowed(folder: Path) -> Path:
    return written(folder, series(lead("1 2")), before='<?xml version="1.0" encoding="UTF-7"?>')


def case_encoding_against_its_byte_order_mark(folder: Path) -> Path:
    return written(
        folder, series(lead("1 2")), before='\ufeff<?xml version="1.0" encoding="utf-8"?>\ud7ff', encoding="utf-16-le"
    )


def case_65_leads(folder: Path) -> Path:
    return written(folder, series(*[lead("1 2 3", f"X{place}") for place in range(65)]))


def case_longer_than_four_hours(folder: Path) -> Path:
    return written(folder, series(lead("0 " * 14_401), increment='<increment value="1" unit="s"/>'))


def case_four_hours_and_ten_minutes_at_250_hz(folder: Path) -> Path:
    return written(folder, series(lead("0 " * 3_750_000), increment='<increment value="4" unit="ms"/>'))


def case_one_number_of_a_million_digits(folder: Path) -> Path:
    return written(folder, series(lead("9" * 1_000_000)))


def case_a_million_signs(folder: Path) -> Path:
    return written(folder, series(lead("- " * 1_000_000)))


def case_samples_beyond_32_bits(folder: Path) -> Path:
    return written(folder, series(lead("1 2147483648")))


def case_junk_behind_the_samples(folder: Path) -> Path:
    return written(folder, series(lead("1 2 x")))


def case_an_element_among_the_samples(folder: Path) -> Path:
    return written(folder, series(lead("1 2 <b/>3 4")))


def case_leads_of_unequal_length(folder: Path) -> Path:
    return written(folder, series(lead("1 2 3"), lead("1 2", "II")))


def case_two_rhythms(folder: Path) -> Path:
    return written(folder, series(lead("1 2")), series(lead("3 4")))


def case_no_samples(folder: Path) -> Path:
    return written(folder, series(lead("")))


def case_increment_of_nothing(folder: Path) -> Path:
    return written(folder, series(lead("1 2"), increment='<increment value="0" unit="s"/>'))


def case_increment_that_is_no_number(folder: Path) -> Path:
    return written(folder, series(lead("1 2"), increment='<increment value="nan" unit="s"/>'))


def case_scale_of_nothing(folder: Path) -> Path:
    return written(folder, series(lead("1 2", amounts='<origin value="0" unit="uV"/><scale value="0" unit="uV"/>')))


def case_scale_beyond_all_voltages(folder: Path) -> Path:
    return written(folder, series(lead("1 2", amounts='<origin value="0" unit="V"/><scale value="1e99" unit="V"/>')))
