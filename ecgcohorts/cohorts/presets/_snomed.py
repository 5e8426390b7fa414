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
# With them, the other 18 of the 24 classes of the Challenge of 2020: 27 scored codes, of which CRBBB and RBBB, PAC and SVPB,
# PVC and VPB count as one. CPSC 2018 codes its PVC, ST depression and ST elevation as what follows. Source: the same
# repository, dx_mapping_scored.csv and dx_mapping_unscored.csv.
OTHERS: dict[str, tuple[str, ...]] = {
    "dx_afl": ("164890007",),
    "dx_brady": ("426627000",),
    "dx_irbbb": ("713426002",),
    "dx_lad": ("39732003",),
    "dx_lanfb": ("445118002",),
    "dx_lpr": ("164947007",),
    "dx_lqrsv": ("251146004",),
    "dx_lqt": ("111975006",),
    "dx_nsivcb": ("698252002",),
    "dx_nsr": ("426783006", "Normal"),
    "dx_pac": ("284470004", "63593006", "PAC"),
    "dx_pr": ("10370003",),
    "dx_pvc": ("427172004", "17338001"),
    "dx_qab": ("164917005",),
    "dx_rad": ("47665007",),
    "dx_sa": ("427393009",),
    "dx_tab": ("164934002",),
    "dx_tinv": ("59931005",),
    "dx_veb": ("164884008", "PVC"),
    "dx_std": ("429622005", "STD"),
    "dx_ste": ("164931005", "STE"),
}
# Records JS00001 to JS10646 are from Shaoxing (10,247 of those numbers exist), JS10647 to JS45551 from Ningbo (34,905).
FROM_NINGBO = r"JS(?!0|10[0-5]\d\d|106[0-3]\d|1064[0-6])\d{5}$"


def present(*codes: str) -> Label:
    """Make a label that is 1 where the comment `Dx` lists one of the codes."""
    return Label(find=(Where(header="Dx"),), codes=codes)
