"""Makers and models of electrocardiographs, to keep of a device's text nothing else: it may hold a serial number.

Models are those that headers of public cohorts, vendors' example files and manuals state. Digits are bounded, because a
longer number is a serial number.
"""

import re

_MAKERS = {
    "AliveCor": ("KardiaMobile(?: 6L| Card)?", "Kardia(?: 12L)?"),
    "Apple": ("Apple Watch", "Watch"),
    "Bionet": ("Cardio ?(?:Touch|Care|7|XP)",),
    "Bittium": ("Faros(?: ?(?:180|360))?",),
    "Burdick": ("Atria ?[0-9]{4}", "Eclipse(?: ?(?:LE|[0-9]{1,3}))?"),
    "Cardioline": ("(?:touch)?ECG ?[0-9]{2,3}[A-Z+]{0,2}", "ar ?[0-9]{3,4}"),
    "Contec": ("ECG ?[0-9]{2,4}[A-Z]?",),
    "Edan": ("SE-?[0-9]{1,4}[A-Z]?", "iSE"),
    "Fukuda Denshi": ("FX-?[0-9]{4}", "FCP-?[0-9]{4}", "CardiMax", "CardiSuny"),
    "GE": ("MAC ?(?:VU ?[0-9]{3}|[0-9]{2,4})(?: ?(?:HD|ST|C))?", "MAC ?(?:PC|RHYTHM|VU)", "CardioSoft", "CASE(?: ?[0-9]{4})?"),
    "Healforce": ("Prince ?180 ?[A-D]?",),
    "Hewlett-Packard": ("M17[0-9]{2}[A-Z]?", "47[0-9]{2}A"),
    "Marquette": ("MAC ?[0-9]{1,4}", "MAC-?(?:I|II|VU|PC)"),
    "Mindray": ("BeneHeart ?[RD][0-9]{1,2}[A-Z]?",),
    "Mortara": ("ELI ?[0-9]{2,3}[a-z]?", "X-?Scribe(?: ?[0-9])?"),
    "Nihon Kohden": ("ECG-?[0-9]{4}[A-Z]?", "Cardiofax(?: ?[A-Z])?"),
    "Philips": ("PageWriter(?: ?(?:TC ?[0-9]{2}|Touch|Trim(?: ?(?:I{1,3}|Rx))?|[0-9]{3}))?", "TC ?[0-9]{2}", "M3708A"),
    "Schiller": ("AT-? ?[0-9]{1,3}(?: ?(?:plus|C))?", "CS-? ?[0-9]{1,3}(?: ?Touch)?", "MS-?[0-9]{1,4}", "Cardiovit(?: ?[A-Z]{2}-?[0-9]{1,3})?"),
    "Siemens": ("Megacart", "Sicard(?: ?[0-9]{3})?"),
    "Suzuken": ("Cardico ?[0-9]{3,4}", "Kenz"),
    "Welch Allyn": ("CP ?[0-9]{2,3}", "CardioPerfect"),
    "Zenicor": ("Zenicor-?ECG",),
}  # fmt: skip
# Between a model and what follows there must be a boundary: of "MAC 55001234" nothing is a model.
_MODEL = {
    maker: re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(models)})(?![A-Za-z0-9])", re.IGNORECASE)
    for maker, models in _MAKERS.items()
}
_SPELLINGS = {"GE": "GE(?: Medical(?: Systems)?| Healthcare)?", "Hewlett-Packard": "Hewlett[- ]?Packard|HP"}
_NAMED = {
    maker: re.compile(rf"(?<![A-Za-z0-9])(?:{_SPELLINGS.get(maker, re.escape(maker))})(?![A-Za-z0-9])", re.IGNORECASE)
    for maker in _MAKERS
}


def _known_device(text: str) -> str | None:
    """Return the maker and the model that a text names, as far as they are known; None if neither is.

    >>> _known_device("MAC 5500 HD  SN 12345678"), _known_device("Philips, ward 7"), _known_device("77123")
    ('MAC 5500 HD', 'Philips', None)
    """
    maker = next((maker for maker, named in _NAMED.items() if named.search(text)), None)
    # Only models of the maker that is named, if one is: several makers have an "ECG" of some number.
    for one in _MODEL if maker is None else (maker,):
        if model := _MODEL[one].search(text):
            words = " ".join(model.group().split())
            return words if maker is None or words.startswith(maker) else f"{maker} {words}"
    return maker
