"""XML that no parser should take at its word. Every reader of `.xml` meets these; most call themselves MUSE files."""

from pathlib import Path

MEGABYTE = 1 << 20
ALMOST_TOO_LARGE = 63 * MEGABYTE  # just below the limit on the file's size


def document(folder: Path, body: str | bytes, before: str = "", root: str = "RestingECG") -> Path:
    path = folder / "hostile.xml"
    body = body.encode() if isinstance(body, str) else body
    path.write_bytes(f"{before}<{root}>".encode() + body + f"</{root}>".encode())
    return path


def repeated(folder: Path, piece: str, before: str = "", after: str = "", size: int = ALMOST_TOO_LARGE) -> Path:
    return document(folder, before + piece * (size // len(piece)) + after)


def attributes(name: str, count: int) -> str:
    return " ".join(f'{name}{number}="u"' for number in range(count))


def case_billion_laughs(folder: Path) -> Path:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return document(folder, "&l9;", f'<!DOCTYPE RestingECG [<!ENTITY l0 "ha">{levels}]>')


def case_quadratic_blowup(folder: Path) -> Path:
    return document(folder, "&a;" * 50_000, f'<!DOCTYPE RestingECG [<!ENTITY a "{"x" * 50_000}">]>')


def case_external_entity_file(folder: Path) -> Path:
    return document(folder, "&a;", '<!DOCTYPE RestingECG [<!ENTITY a SYSTEM "file:///etc/passwd">]>')


def case_external_entity_url(folder: Path) -> Path:
    return document(folder, "&a;", '<!DOCTYPE RestingECG [<!ENTITY a SYSTEM "http://127.0.0.1:9/x">]>')


def case_external_parameter_entity(folder: Path) -> Path:
    return document(folder, "", '<!DOCTYPE RestingECG [<!ENTITY % a SYSTEM "http://127.0.0.1:9/x"> %a;]>')


def case_external_dtd_file(folder: Path) -> Path:
    (folder / "restecg.dtd").write_text('<!ENTITY a "b">')
    return document(folder, "&a;", '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">')


def case_external_dtd_url(folder: Path) -> Path:
    return document(folder, "&a;", '<!DOCTYPE RestingECG PUBLIC "-//x//x" "http://127.0.0.1:9/x.dtd">')


def case_xinclude(folder: Path) -> Path:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>'
    return document(folder, include)


def case_stylesheet(folder: Path) -> Path:
    return document(folder, "", '<?xml-stylesheet href="http://127.0.0.1:9/x.xsl"?>')


def case_nested_tags_200000(folder: Path) -> Path:
    return document(folder, "<a>" * 200_000 + "</a>" * 200_000)


def case_sibling_elements_10_million(folder: Path) -> Path:
    return document(folder, "<a/>" * 10_000_000)


def case_attributes_one_million_in_one_tag(folder: Path) -> Path:
    return document(folder, f"<a {attributes('x', 1_000_000)}/>")


def case_attributes_forty_in_each_tag(folder: Path) -> Path:
    return document(folder, f"<a {attributes('x', 40)}/>" * 150_000)


def case_namespaces_without_end(folder: Path) -> Path:
    return document(folder, f"<a {attributes('xmlns:n', 50_000)}/>" * 50)


def case_document_of_65_mib(folder: Path) -> Path:
    path = document(folder, "")
    with path.open("r+b") as file:
        file.truncate(65 * MEGABYTE)
    return path


def case_empty_comments(folder: Path) -> Path:
    return repeated(folder, "<!---->")


def case_endless_comment(folder: Path) -> Path:
    return repeated(folder, "-x", "<!--", "-->")


def case_endless_instruction(folder: Path) -> Path:
    return repeated(folder, "x", "<?a ", "?>")


def case_endless_attribute(folder: Path) -> Path:
    return repeated(folder, "x", '<a b="', '"/>')


def case_endless_tag_name(folder: Path) -> Path:
    return repeated(folder, "x", "<a", "/>")


def case_endless_text(folder: Path) -> Path:
    return repeated(folder, "x")


def case_endless_text_of_wide_characters(folder: Path) -> Path:
    return repeated(folder, "x" * 8191 + "\U0001f600")


def case_wide_character_in_each_of_many_texts(folder: Path) -> Path:
    return repeated(folder, f"<a>{'x' * 20_000}\U0001f600</a>")


def case_nothing_but_line_ends(folder: Path) -> Path:
    return repeated(folder, "\n")


def case_nothing_but_references(folder: Path) -> Path:
    return repeated(folder, "&#65;")


def case_declarations_without_end(folder: Path) -> Path:
    return document(folder, "", f"<!DOCTYPE RestingECG [{'<!ELEMENT a ANY>' * 1_000_000}]>")


def case_encoding_utf_7(folder: Path) -> Path:
    return document(folder, "+ADw-a+AD4-", '<?xml version="1.0" encoding="UTF-7"?>')


def case_encoding_unknown(folder: Path) -> Path:
    return document(folder, "", '<?xml version="1.0" encoding="x-klingon"?>')


def case_encoding_that_is_no_text_codec(folder: Path) -> Path:
    return document(folder, "", '<?xml version="1.0" encoding="zlib_codec"?>')


def case_utf_16_without_bom(folder: Path) -> Path:
    path = folder / "hostile.xml"
    path.write_bytes('<?xml version="1.0" encoding="UTF-16"?><RestingECG/>'.encode("utf-16-le"))
    return path


def case_billion_laughs_in_gb18030(folder: Path) -> Path:
    return _laughs(folder, "GB18030", "gb18030")


def case_billion_laughs_in_utf_16_without_bom(folder: Path) -> Path:
    return _laughs(folder, "UTF-16", "utf-16-be")


def case_billion_laughs_between_blank_lines_and_ctrl_z(folder: Path) -> Path:
    return _laughs(folder, "Shift_JIS", "shift_jis", "\n\n", "\x1a\0")


def _laughs(folder: Path, name: str, codec: str, before: str = "", after: str = "") -> Path:
    path = case_billion_laughs(folder)
    text = f'{before}<?xml version="1.0" encoding="{name}"?>{path.read_text()}{after}'
    path.write_bytes(text.encode(codec))
    return path


def case_bad_bytes_without_end(folder: Path) -> Path:
    return document(folder, b"\xff\x0b" * (ALMOST_TOO_LARGE // 2))


def case_a_bad_byte_in_each_of_many_comments(folder: Path) -> Path:
    return document(folder, (b"<!--" + b"x" * 20_000 + b"\xff-->") * (ALMOST_TOO_LARGE // 20_009))


def case_bad_bytes_of_a_code_page_of_two_bytes(folder: Path) -> Path:
    declared = '<?xml version="1.0" encoding="GBK"?>'
    return document(folder, b"\xff<a>\x81</a>" * (ALMOST_TOO_LARGE // 9), declared)


def case_samples_among_bad_bytes(folder: Path) -> Path:
    lead = b"<LeadData><LeadID>I</LeadID><WaveFormData>AAAA\xa0AAAA\x85</WaveFormData></LeadData>"
    return document(folder, b"<Waveform><WaveformType>Rhythm</WaveformType>" + lead * 12 + b"</Waveform>")


def case_zeros_after_half_a_document(folder: Path) -> Path:
    path = folder / "hostile.xml"
    path.write_bytes(b"<RestingECG><Waveform>" + bytes(ALMOST_TOO_LARGE))
    return path


def case_blanks_before_the_declaration(folder: Path) -> Path:
    return document(folder, "", " " * ALMOST_TOO_LARGE + '<?xml version="1.0"?>')


def case_utf_32(folder: Path) -> Path:
    path = folder / "hostile.xml"
    path.write_bytes('<?xml version="1.0" encoding="UTF-32"?><RestingECG/>'.encode("utf-32"))
    return path


def case_declared_encoding_contradicts_the_bom(folder: Path) -> Path:
    path = folder / "hostile.xml"
    path.write_bytes(b"\xff\xfe" + b'<?xml version="1.0" encoding="UTF-8"?><RestingECG></RestingECG>')
    return path


def case_bom_inside_latin_1(folder: Path) -> Path:
    path = folder / "hostile.xml"
    path.write_bytes(b'\xef\xbb\xbf<?xml version="1.0" encoding="ISO-8859-1"?><RestingECG>\xe9</RestingECG>')
    return path


def case_lone_surrogates(folder: Path) -> Path:
    path = folder / "hostile.xml"
    path.write_bytes(b"\xff\xfe" + "<RestingECG>\ud800</RestingECG>".encode("utf-16-le", "surrogatepass"))
    return path


def case_control_characters(folder: Path) -> Path:
    return document(folder, b"\x00\x01\x1b[2J")


def case_two_roots(folder: Path) -> Path:
    return document(folder, "</RestingECG><RestingECG>")


def case_only_a_declaration(folder: Path) -> Path:
    path = folder / "hostile.xml"
    path.write_bytes(b'<?xml version="1.0"?>')
    return path
