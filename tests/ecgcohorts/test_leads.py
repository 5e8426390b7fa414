"""Lead names are read exactly or not at all; derived leads are identities, never guesses."""

import numpy as np
import pytest

from ecgcohorts.errors import Reason, RejectedRecording
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, canonical, positions, select


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("I", "I"),
        (" ii ", "II"),
        ("DIII", "III"),
        ("DI", "I"),
        ("AVR", "aVR"),
        ("aVF", "aVF"),
        ("MDC_ECG_LEAD_V6", "V6"),
        ("Lead aVL", "aVL"),
        ("ECG I", "I"),
        ("EKG V1", "V1"),
        ("v_2", "V2"),
        ("C1", "V1"),
        ("ECG C6", "V6"),
        ("lead c_3", "V3"),
    ],
)
def test_aliases(name, lead):
    assert canonical(name) == lead


@pytest.mark.parametrize(
    "name",
    [
        "MLII",
        "V",
        "MCL1",
        "C",
        "C0",
        "C7",
        "CR1",
        "CV5",
        "CC5",
        "Cz",
        "C3-A2",
        "EEG C3",
        "VC1",
        "II-cal",
        "-aVR",
        "Lead -aVR",
        "ECG -aVR",
        "aVRneg",
        "V7",
        "V3R",
        "vx",
        "",
        "ECG",
        "IV",
    ],
)
def test_other_signals_are_no_aliases(name):
    assert canonical(name) is None


@pytest.mark.parametrize(
    ("others", "chest"),
    [
        (("I", "II"), True),
        (("aVR", "aVF", "resp"), True),
        ((), False),  # an EEG of many electrodes
        (("Fz", "Cz", "ECG"), False),
        (("I", "II", "V1"), False),  # the V leads count
        (("I", "V9", "vx"), True),
    ],
)
def test_c1_to_c6_are_chest_leads_beside_limb_leads(others, chest):
    names = [*others, *(f"C{number}" for number in range(1, 7))]
    found = {lead: at - len(others) for lead, at in positions(names).items() if at >= len(others)}
    assert found == ({f"V{number + 1}": number for number in range(6)} if chest else {})
    assert positions(["ECG I", "ECG II", "C3", "C4"]) == {"I": 0, "II": 1}


def test_c1_twice_is_refused():
    with pytest.raises(RejectedRecording, match="V1 twice"):
        positions(["I", "II", "C1", "c1", "C2"])


def twelve(seed: int = 0) -> np.ndarray:
    """(12, time) that obeys Einthoven and Goldberger exactly: small integers."""
    one, two, *chest = np.random.default_rng(seed).integers(-400, 400, (8, 50)) * 2.0
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


def test_order_in_the_file_does_not_matter():
    signal = twelve()
    order = np.random.default_rng(1).permutation(12)
    shuffled = select(signal[order], [TWELVE_LEADS[place] for place in order])
    np.testing.assert_array_equal(shuffled, signal[[TWELVE_LEADS.index(lead) for lead in EIGHT_LEADS]])


LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")


@pytest.mark.parametrize("pair", [(a, b) for i, a in enumerate(LIMB) for b in LIMB[i + 1 :]])
def test_any_two_limb_leads_give_i_and_ii(pair):
    signal = twelve()
    kept = [*pair, *EIGHT_LEADS[2:]]
    derived = select(signal[[TWELVE_LEADS.index(lead) for lead in kept]], kept)
    np.testing.assert_allclose(derived[:2], signal[:2], atol=1e-9)


def test_the_other_four_limb_leads_follow_from_eight():
    signal = twelve()
    eight = select(signal, TWELVE_LEADS)
    np.testing.assert_allclose(select(eight, EIGHT_LEADS, TWELVE_LEADS), signal, atol=1e-9)


def test_a_missing_chest_lead_is_never_made_up():
    kept = [lead for lead in TWELVE_LEADS if lead != "V4"]
    with pytest.raises(RejectedRecording, match="no V4 among 11 signals") as caught:
        select(np.zeros((11, 5)), kept)
    assert caught.value.reason == Reason.LEADS


def test_one_limb_lead_is_not_enough():
    with pytest.raises(RejectedRecording, match="no II among 7"):
        select(np.zeros((7, 5)), ["I", *EIGHT_LEADS[2:]])


def test_one_lead_under_two_names_is_refused():
    with pytest.raises(RejectedRecording, match="lead II twice") as caught:
        select(np.zeros((3, 5)), ["I", "II", "DII"])
    assert caught.value.reason == Reason.DUPLICATE_LEAD
