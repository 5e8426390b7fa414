"""Sets of labels that one probe or network answers: the tasks of the papers. Set -> class as the source writes it -> label column.

A set names a system of labels, not a cohort: every cohort that carries the columns can be asked. The columns are those of the
cohort presets `ptb_xl` (SCP-ECG), `cinc2021` and `chapman_ningbo` (SNOMED CT), `sph` (AHA), and CODE's six of most of them.
"""

from collections.abc import Mapping

# SCP-ECG statements of PTB-XL (Wagner 2020, scp_statements.csv). Four statements are diagnosis and form: 44 + 19 + 12 - 4 = 71.
_DIAGNOSTIC = (
    *("NDT", "NST_", "DIG", "LNGQT", "NORM", "IMI", "ASMI", "LVH", "LAFB", "ISC_", "IRBBB", "1AVB", "IVCD", "ISCAL"),
    *("CRBBB", "CLBBB", "ILMI", "LAO/LAE", "AMI", "ALMI", "ISCIN", "INJAS", "LMI", "ISCIL", "LPFB", "ISCAS", "INJAL"),
    *("ISCLA", "RVH", "ANEUR", "RAO/RAE", "EL", "WPW", "ILBBB", "IPLMI", "ISCAN", "IPMI", "SEHYP", "INJIN", "INJLA"),
    *("PMI", "3AVB", "INJIL", "2AVB"),
)
_FORM = (
    *("NDT", "NST_", "DIG", "LNGQT", "ABQRS", "PVC", "STD_", "VCLVH", "QWAVE", "LOWT", "NT_", "PAC", "LPR", "INVT"),
    *("LVOLT", "HVOLT", "TAB_", "STE_", "PRC(S)"),
)
_RHYTHM = (
    *("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU"),
)  # fmt: skip
# AHA/ACC/HRS statements of SPH (Liu 2022, code.csv), besides those that CODE's six and normal stand for.
_AHA = (
    *(23, 30, 31, 36, 37, 51, 54, 60, 80, 81, 83, 84, 85, 86, 87, 88, 101, 102, 105, 108, 120, 121, 125, 140, 142, 143),
    *(145, 146, 147, 148, 152, 153, 155, 160, 161, 165, 166),
)


def _scp(codes: tuple[str, ...]) -> dict[str, str]:
    marks = str.maketrans({"/": "_", "(": "_", ")": ""})
    return {code: f"scp_{code.lower().translate(marks).strip('_')}" for code in codes}


_CODE_SIX = {"1dAVb": "avb1", "RBBB": "rbbb", "LBBB": "lbbb", "SB": "sb", "AF": "af", "ST": "st"}

SETS: Mapping[str, Mapping[str, str]] = {
    # Classes as CAPE's public code has them.
    "superclass": {"NORM": "norm", "MI": "mi", "STTC": "sttc", "CD": "cd", "HYP": "hyp"},
    "subclass": {
        **{"NORM": "norm", "IMI": "sub_imi", "STTC": "sub_sttc", "NST_": "sub_nst", "LVH": "sub_lvh"},
        **{"LAFB/LPFB": "sub_lafb_lpfb", "RVH": "sub_rvh", "RAO/RAE": "sub_rao_rae", "IRBBB": "sub_irbbb"},
        **{"IVCD": "sub_ivcd", "LMI": "sub_lmi", "AMI": "sub_ami", "_AVB": "sub_avb", "ISCA": "sub_isca"},
        **{"SEHYP": "sub_sehyp", "ISCI": "sub_isci", "ISC_": "sub_isc", "CRBBB": "sub_crbbb"},
        **{"CLBBB": "sub_clbbb", "LAO/LAE": "sub_lao_lae", "ILBBB": "sub_ilbbb", "PMI": "sub_pmi", "WPW": "sub_wpw"},
    },
    "scp_all": _scp(tuple(dict.fromkeys((*_DIAGNOSTIC, *_FORM, *_RHYTHM)))),
    "scp_diagnostic": _scp(_DIAGNOSTIC),
    "scp_form": _scp(_FORM),
    "scp_rhythm": _scp(_RHYTHM),
    "code_six": _CODE_SIX,
    "cpsc_nine": {
        **{"Normal": "dx_nsr", "AF": "af", "I-AVB": "avb1", "LBBB": "lbbb", "RBBB": "rbbb", "PAC": "dx_pac"},
        **{"PVC": "dx_veb", "STD": "dx_std", "STE": "dx_ste"},
    },
    # The 27 scored codes of the Challenge of 2020 with its three merges; names as its table has them. LBBB includes the
    # complete one, as in the Challenge of 2021: no record of 2020 has that code.
    "challenge_24": {
        **{"IAVB": "avb1", "AF": "af", "AFL": "dx_afl", "Brady": "dx_brady", "CRBBB/RBBB": "rbbb", "IRBBB": "dx_irbbb"},
        **{"LAnFB": "dx_lanfb", "LAD": "dx_lad", "LBBB": "lbbb", "LQRSV": "dx_lqrsv", "NSIVCB": "dx_nsivcb"},
        **{"PR": "dx_pr", "PAC/SVPB": "dx_pac", "PVC/VPB": "dx_pvc", "LPR": "dx_lpr", "LQT": "dx_lqt", "QAb": "dx_qab"},
        **{
            "RAD": "dx_rad",
            "SA": "dx_sa",
            "SB": "sb",
            "SNR": "dx_nsr",
            "STach": "st",
            "TAb": "dx_tab",
            "TInv": "dx_tinv",
        },
    },
    "aha": {
        **{"1": "normal_ecg", "21": "st", "22": "sb", "50": "af", "82": "avb1", "104": "lbbb", "106": "rbbb"},
        **{str(number): f"aha_{number}" for number in _AHA},
    },
}
