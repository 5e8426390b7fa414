"""SNOMED CT codes of the `Dx` comment, as the PhysioNet Challenges and the Chapman-Ningbo release write it."""

from ecgcohorts.cohorts.schema import Label, Where

# The six abnormalities of CODE, and the text codes of the first CPSC 2018 headers. The Challenge scores complete and
# unspecified bundle branch blocks as one. Source: dx_mapping_scored.csv, physionetchallenges/evaluation-2021.
SIX: dict[str, tuple[str, ...]] = {
    "avb1": ("270492004", "I-AVB"),
    "rbbb": ("59118001", "713427006", "RBBB"),
    "lbbb": ("164909002", "733534002", "LBBB"),
    "sb": ("426177001",),
    "af": ("164889003", "AF"),
    "st": ("427084000",),
}
# Records JS00001 to JS10646 are from Shaoxing (10,247 of those numbers exist), JS10647 to JS45551 from Ningbo (34,905).
FROM_NINGBO = r"JS(?!0|10[0-5]\d\d|106[0-3]\d|1064[0-6])\d{5}$"


def present(*codes: str) -> Label:
    """Make a label that is 1 where the comment `Dx` lists one of the codes."""
    return Label(find=(Where(header="Dx"),), codes=codes)
