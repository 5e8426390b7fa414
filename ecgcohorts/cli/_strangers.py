"""Warnings on standard error, with what steers a terminal written out: they may repeat names of files, devices and cohorts."""

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator

# Control characters but tab and line feed, marks that turn the order of letters, and halves of characters, which a file
# name may hold and no terminal can print.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _visible(text: str) -> str:
    r"""Return a text with what steers a terminal written out, as \x1b: names and cards are the words of strangers."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@contextlib.contextmanager
def _shown_safely() -> Iterator[None]:
    """Print warnings that way, of logging and of Python, as long as the context lasts. Other handlers stay as they are."""
    last, form = logging.lastResort, warnings.formatwarning
    logging.lastResort = _OnTerminal(logging.WARNING)
    # Of libraries as well: a parser may quote what it read.
    warnings.formatwarning = lambda *args, **kwargs: _visible(form(*args, **kwargs))
    try:
        yield
    finally:
        logging.lastResort, warnings.formatwarning = last, form


class _OnTerminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # One line for one warning, unless it comes with a trace: a name must not pass for a line of ours.
        print(_visible(text if record.exc_info else text.replace("\n", "\\n")), file=sys.stderr)
