"""Pages made of trusted markup and of text that must stay text."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from ecgcohorts.errors import SourceError
from ecgcohorts.report.page import Markup, Section, cell, facts, figure, heading, page, paragraph, table, write_text

EVIL = '<script>alert("1")</script>'


class Tags(HTMLParser):
    """Counts tags and attributes, and checks that what opens closes."""

    VOID = ("meta", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "made",
    [
        page(EVIL, [], EVIL),
        page("", [Section(EVIL, EVIL)]),
        page("", [Section("", paragraph(EVIL) + heading(EVIL) + facts({EVIL: EVIL}))]),
        page("", [Section("", figure("<svg></svg>", EVIL))]),
        page("", [Section("", table(pd.DataFrame({EVIL: [EVIL]}, index=pd.Index([EVIL], name=EVIL)), EVIL))]),
    ],
    ids=["title", "plain section", "texts", "caption", "table"],
)
def test_text_never_becomes_a_tag(made):
    assert "script" not in Tags(made).seen
    assert made.count("&lt;script&gt;") >= 1


def test_markup_stays_markup_and_sections_are_linked():
    made = page("Title", [Section("One", Markup("<p>first</p>")), Section("Two", paragraph("second"))], "below")
    assert Tags(made).seen.count("p") == 3
    assert '<a href="#s2">Two</a>' in made
    assert '<h2 id="s2">Two</h2>' in made


def test_a_page_loads_nothing_from_elsewhere():
    made = page("Title", [Section("One", table(pd.DataFrame({"a": [1]})))])
    parsed = Tags(made)
    assert not {"script", "link", "iframe", "object", "img"} & set(parsed.seen)
    assert [value for name, value in parsed.attributes if name in ("src", "href")] == ["#s1"]
    assert "url(" not in made
    assert "@import" not in made
    assert "default-src 'none'" in made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12345, "12,345"),
        (np.int64(7), "7"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (0.123456, "0.1235"),
        (12345.6, "12,346"),
        (np.float32("nan"), "\N{EN DASH}"),
        (None, "\N{EN DASH}"),
        ("as it is", "as it is"),
    ],
)
def test_cells_as_a_person_reads_them(value, shown):
    assert cell(value) == shown


def test_numbers_stand_to_the_right_and_words_to_the_left():
    markup = table(pd.DataFrame({"a": [1, 2.5], "b": ["1,234 (51%)", "words"]}, index=["x", "y"]))
    assert "<td>1,234 (51%)</td>" in markup
    assert '<td class="text">words</td>' in markup
    assert "<td>2.5</td>" in markup


def test_a_row_of_empty_cells_is_a_heading():
    markup = table(pd.DataFrame({"a": ["", "1", 0]}, index=["sex", "  male", "none"]))
    assert markup.count('<tr class="group"><th>sex</th>') == markup.count('class="group"') == 1


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(SourceError, match=r"^\S+out.html: cannot be written \(No such file or directory\)"):
        write_text(tmp_path / "nowhere" / "out.html", "x")
