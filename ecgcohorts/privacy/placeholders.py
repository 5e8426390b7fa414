"""Tell patient ids from placeholders, which are listed here alone.

De-identification tools and empty form fields write them. Hashing one like an id would make a single patient of all its
bearers, whose recordings would then be "positives" of each other. No list is complete: a cohort's description names its
own, and `index.contradictions` finds the patients that one of them made.
"""

import re
import unicodedata
from functools import lru_cache


def _folded(text: str) -> str:
    """Return the text in lower case, full-width letters as usual ones, without accents and vowel signs."""
    apart = unicodedata.normalize("NFKD", text.strip().casefold())
    return unicodedata.normalize(
        "NFC", "".join(char for char in apart if not unicodedata.category(char).startswith("M"))
    )


# A text is no id if each of its words, folded, stands here.
_TEXT = """
unknown unk unkn unspecified unassigned undefined undisclosed unavailable unidentified unnamed unregistered none nan nat
na null nil noid noname nodata void invalid empty blank blanked missing absent redacted removed masked hidden deleted
erased withheld suppressed censored scrubbed stripped cleared concealed restricted confidential private secret pending
tbd tbc todo deidentified deid deidentify sanitized sanitised pseudonymized pseudonymised obfuscated phi pii
test testing tester testpatient demo dummy example sample default placeholder filler temp temporary emergency asdf qwerty
not no without applicable available known given entered specified recorded provided assigned stated identified set yet
de identified the of and value data field number name text string code patient patients patientid patid pid id ids mrn
ssn subject nn xx xxx xxxx

unbekannt unbekannte unbekannter unbek anonymisiert anonymisierter anonyme anonymer kein keine keiner ohne leer entfernt
geschwarzt geloscht pseudonymisiert nicht bekannt angegeben vorhanden verfugbar angabe angaben namenlos maskiert fehlt
fehlend fehlende testpatientin musterpatient mustermann notfall nummer kennung

inconnu inconnue anonymise anonymisee supprime supprimee masque masquee aucun aucune sans nom vide non renseigne
renseignee disponible connu communique manquant manquante cache cachee efface effacee essai numero identifiant

desconocido desconocida anonimo anonima anonimizado anonimizada ninguno ninguna sin nombre identificar dato datos vacio
vacia eliminado eliminada borrado borrada oculto oculta aplica consta prueba paciente enmascarado identificado

desconhecido desconhecida nenhum nenhuma sem nome vazio removido removida apagado apagada nao informado informada
disponivel indisponivel ignorado ignorada teste ausente mascarado

sconosciuto sconosciuta ignoto ignota anonimizzato nessuno nessuna vuoto rimosso rimossa cancellato cancellata nascosto
nascosta disponibile noto nota prova mancante paziente oscurato senza

onbekend anoniem geanonimiseerd geen leeg verwijderd ontbreekt ontbrekend niet bekend beschikbaar proef verborgen naam

okand okant ukendt ukjent saknas mangler ingen tom borttagen fjernet slettet ej kand kendt kjent ikke dold skjult
tuntematon nimeton anonyymi tyhja poistettu puuttuu tiedossa ei

nieznany nieznana nieznane brak danych pusty puste usuniety usunieta usunieto pacjent bezimienny
neznamy neznama neznamo zadny zadne prazdny odstraneno neuvedeno chybi nezadano nepoznat nepoznato nepoznata
ismeretlen nevtelen nincs ures torolve hianyzik necunoscut necunoscuta lipsa sters
bilinmiyor bilinmeyen yok bos silindi gizli isimsiz belirtilmemis hasta
tidak diketahui kosong khong ro rong

неизвестно неизвестныи неизвестен неизвестная аноним анонимныи анонимно анонимная нет данных удалено скрыто пусто
отсутствует тест пациент обезличено невідомо невідомии анонім неизвестна неизвестен непознат непознато
αγνωστο αγνωστος ανωνυμος ανωνυμο κενο
مجهول غير معروف محذوف فارغ ناشناس נמחק אנונימי ידוע לא अजञात

未知 匿名 无 無 无名 無名 空 不详 不詳 未填 未填写 已删除 已刪除 删除 测试 測試 缺失 无名氏 無名氏 不明 保密 暂无 脱敏 已脱敏 隐藏 患者
無し なし 名無し 未入力 削除 テスト 未登録 該当なし 非公開 不詳
없음 미상 익명 불명 알수없음 테스트 삭제 미확인 환자
"""
_WORDS = frozenset(_folded(word) for word in _TEXT.split())
# Whole texts whose words, taken apart, could be ids or names of people.
_PHRASES = frozenset(
    ["n a", "n d", "n k", "n n", "n", "k a", "s d", "s n", "john doe", "doe john", "jane doe", "doe jane", "no consta"]
)
_NUMBERS = re.compile(
    r"0+"  # 0, 000-00-0000
    r"|9{4,}|(\d)\1{5,}"  # 9999, 999-99-9999, 111111
    r"|0?12345(?:6(?:7(?:8(?:90?)?)?)?)?|987654321?0?"
)
_EXCEL = re.compile(r"#(?:n/a|ref!|value!|null!|name\?|num!|div/0!)|-1|-9+")
# Study codes such as ANON0001 and ANON-001; "anon-17" and "Anonymous^1" come from forms, one for all.
_CODE = re.compile(r"anon[a-z]*(?:\d+|[-_./]\d{3,})[\w.-]*")
_NO_WORD = re.compile(r"[\W_]+")
_ONE_LETTER = re.compile(r"x+|([^\W\d_])\1{2,}|f{8,}")
_MAX_CHARS = 80  # our default; the longest filler met has 30


@lru_cache(maxsize=1024)  # a filler comes in thousands of files
def is_placeholder(text: str | None) -> bool:
    """Say whether a patient id field holds no id at all.

    >>> [is_placeholder(text) for text in ("", "0000", "[REDACTED]", "Anonymous^1", None, "0042", "ANON0001")]
    [True, True, True, True, True, False, False]
    """
    if text is None:
        return True
    folded = _folded(text)
    words = [word for word in _NO_WORD.split(folded) if word]
    if not words or _EXCEL.fullmatch(folded):
        return True
    if folded.startswith("-") or len(folded) > _MAX_CHARS:  # a negative number is no code above, so it is an id
        return False
    # A table that holds ids as floats prints 9999.0.
    joined, spaced = "".join(words if not re.fullmatch(r"\d+\.0+", folded) else words[:1]), " ".join(words)
    if joined.startswith("anon"):
        return _CODE.fullmatch(folded) is None or re.fullmatch(r"\D*0+", joined) is not None
    if joined.isdigit():
        return _NUMBERS.fullmatch(joined) is not None
    return _ONE_LETTER.fullmatch(joined) is not None or spaced in _PHRASES or _WORDS.issuperset(words)
