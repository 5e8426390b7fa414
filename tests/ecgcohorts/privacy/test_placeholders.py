"""Placeholders are no ids; anything else is one."""

import pytest

from ecgcohorts.privacy.placeholders import is_placeholder

EMPTY = ["", "  ", "0", "000000", "0.0", "000-00-0000", "X", "xxxxxx", "XX/XX/XXXX", "---", "?", "*****", None]
WORDS = ["UNKNOWN", "Unknown ", "ANON", "anon-17", "ANONYMOUS^PATIENT", "n/a", "NA", "None", "nan", "NULL"]
IDS = ["1", "0001", "10019777", "15709.0", "A0", "MAX", "X1", "Xx-9", "X0", "00-00-01", "nanny", "Hanon", "-5"]
# What de-identification tools, forms, tests and tables write, in the languages of the hospitals that export ECGs.
TOOLS = (
    "REDACTED|[REDACTED]|***REMOVED***|MASKED|<none>|(null)|#N/A|\\N|Anonymized|De-identified|DEIDENTIFIED|PHI REMOVED|BLANK|"
    "confidential|withheld|{patient_id}|${PATIENT_ID}|Patient ID|MRN|ID|not available|Not Known|n/k|N.N.|UNKNOWN, UNKNOWN|"
    "TEST|TEST^PATIENT|Demo|dummy|John Doe|DOE^JANE|emergency|Anonymous Patient|ANON0000|Anonymous^1"
)
NUMBERS = (
    "9999|99999|999999999|9999.0|999-99-9999|111111111|88888888|123456789|12345678|0123456789|987654321|-1|-999|-9999|"
    "00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff|aaaa|XXX-XX-XXXX|#####|\u2026"
)
LANGUAGES = (
    "unbekannt|keine Angabe|geschwärzt|GELÖSCHT|ohne|anonymisiert|inconnu|Masqué|supprimé|non renseigné|anonyme|"
    "desconocido|sin identificar|anónimo|desconhecido|não informado|sem nome|sconosciuto|non disponibile|onbekend|geen|"
    "okänd|ukjent|ukendt|tuntematon|nieznany|brak danych|neznámý|ismeretlen|necunoscut|bilinmiyor|không rõ|tidak diketahui|"
    "неизвестно|Неизвестный|нет данных|невідомо|άγνωστος|غير معروف|לא ידוע|अज्ञात|未知|匿名|不详|不明|無し|なし|テスト|없음|익명|"
    "\uff35\uff2e\uff2b\uff2e\uff2f\uff37\uff2e"
)
CODES = (
    "ANON0001|ANON0002|anon_0042|ANON-001|anonymous0007|TEST01|patient001|patient 7|NOID7|UNKNOWN 12|test-subject-3|P001|JD|"
    "99|999|1111|77777|1234|12346|19999999|9999A|Z9999|0900|AAB|Anna|Nona|EKG9999|2.16.840.1.113883.3.1/0042|1.2.840.9999"
)


@pytest.mark.parametrize("text", [*TOOLS.split("|"), *NUMBERS.split("|"), *LANGUAGES.split("|")])
def test_usual_fillers_of_tools_forms_and_languages_are_no_ids(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", CODES.split("|"))
def test_study_codes_and_numbers_that_only_look_like_fillers_are_ids(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize("text", EMPTY + WORDS)
def test_placeholders_are_no_ids(text: str | None) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", IDS)
def test_everything_else_is_an_id(text: str) -> None:
    assert not is_placeholder(text)
