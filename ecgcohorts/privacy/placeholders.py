"""Tell patient ids from placeholders, which are listed here alone."""

import re

# Written by de-identification tools and empty form fields. Hashing one of these like an id would make a single
# patient of all its bearers, whose recordings would then be "positives" of each other.
_PLACEHOLDER = re.compile(
    r"[x?*_.,/\\\s-]*"  # nothing, XXXX, ---, xx/xx/xxxx
    r"|[0_.,/\\\s-]*"  # 0, 000000, 000-00-0000, and 0.0 from a table that holds ids as floats
    r"|anon.*|unknown|unk|unspecified|n[./]?a[.]?|none|nan|null|nil|not available|no id"
)


def is_placeholder(text: str | None) -> bool:
    """Say whether a patient id field holds no id at all.

    >>> [is_placeholder(text) for text in ("", "0000", "XXXX", "Anonymous^1", None, "0042", "Xavier")]
    [True, True, True, True, True, False, False]
    """
    return text is None or _PLACEHOLDER.fullmatch(text.strip().casefold()) is not None
