"""The input contract: what is adapted gives the numbers it should, and the rest is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest

import capezoo
from capezoo import encoders
from capezoo.embedding.adapt import window_starts
from capezoo.embedding.folder import embed_store, open_embeddings
from capezoo.specs import EncoderSpec, InputSpec, parse
from ecgcohorts.errors import RecipeMismatch, RejectedRecording, SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import Cut, Recipe, RecordStatistics, Resample, SelectLeads, Store

WHOLE = {"rate_hz": 500, "leads": TWELVE_LEADS, "unit": "mV"}


class Lead:
    """Stands in for an encoder: gives the mean of each lead's square, so that every lead can be seen apart."""

    def __init__(self, *leads: str) -> None:
        import torch

        self.spec = InputSpec(leads=leads)
        self.num_features, self.training = len(leads), False
        self._one = torch.ones(1)

    def parameters(self):
        return iter([self._one])

    def state_dict(self):
        return {"one": self._one}

    def eval(self):
        return self

    def train(self, mode):
        return self

    def forward_features(self, x):
        return x

    def forward_head(self, x, pre_logits):
        return (x**2).mean(-1)


@pytest.fixture(scope="module")
def model():
    encoder = encoders.build(
        EncoderSpec(name="cape_resnet", config={"widths": [4, 4], "embedding_dim": 6, "kernel": 8}), seed=0
    )
    encoder.spec = InputSpec()
    return encoder


@pytest.fixture(scope="module")
def power(store):
    """lead -> its power in each record of the store, by the leads' own definition."""
    found = dict(zip(EIGHT_LEADS, capezoo.embed(Lead(*EIGHT_LEADS), store).T, strict=True))
    assert len({value[0] for value in found.values()}) == 8
    return found


def test_a_store_serves_its_leads_in_any_order_and_any_number(store, power):
    wanted = ("V5", "II", "V1")
    got = capezoo.embed(Lead(*wanted), store)
    np.testing.assert_allclose(got, np.stack([power[lead] for lead in wanted], 1), rtol=1e-6)
    assert capezoo.adaptation(Lead(*wanted), store).steps(InputSpec(leads=wanted)) == ["leads V5 II V1 taken by name"]
    assert capezoo.adaptation(Lead(*EIGHT_LEADS), store).steps(InputSpec()) == []


def test_limb_leads_are_derived_from_a_store_if_asked_for(store, signals):
    twelve = Lead(*TWELVE_LEADS)
    with pytest.raises(SpecError, match=r'found no III, aVR, aVL, aVF among 8 leads.*: missing_leads="derive"'):
        capezoo.embed(twelve, store)
    got = capezoo.embed(twelve, store, missing_leads="derive")[::-1]
    own = capezoo.embed(twelve, np.stack(signals), **WHOLE)  # measured, not derived: the same but for rounding
    np.testing.assert_allclose(got, own, rtol=2e-2, atol=1e-5)
    done = capezoo.adaptation(twelve, store, missing_leads="derive")
    assert (done.derived, done.zeroed) == (("III", "aVR", "aVL", "aVF"), ())


def test_an_array_needs_a_policy_for_what_it_lacks(model, signals):
    raw = np.stack(signals[:2])
    whole = capezoo.embed(model, raw, **WHOLE)
    kept = [i for i, name in enumerate(TWELVE_LEADS) if name not in ("I", "aVR")]
    some = {"rate_hz": 500, "leads": [TWELVE_LEADS[i] for i in kept], "unit": "mV"}
    with pytest.raises(SpecError, match=r'found no I among 10 leads, expected I II V1 .*: missing_leads="derive"'):
        capezoo.embed(model, raw[:, kept], **some)
    derived = capezoo.embed(model, raw[:, kept], **some, missing_leads="derive")
    np.testing.assert_allclose(derived, whole, rtol=1e-3, atol=1e-5)
    no_v6 = {"rate_hz": 500, "leads": TWELVE_LEADS[:11], "unit": "mV"}
    for policy in ("refuse", "derive"):
        with pytest.raises(SpecError, match=r'found no V6 among 11 leads.*state what to do: missing_leads="zero"'):
            capezoo.embed(model, raw[:, :11], **no_v6, missing_leads=policy)


def test_zeroed_leads_are_zero_and_the_others_are_not(signals, power):
    eight = Lead(*EIGHT_LEADS)
    given = {"rate_hz": 500, "leads": ("II", "III", "V2"), "unit": "mV", "missing_leads": "zero"}
    raw = np.stack(signals)[:, [1, 2, 7]]
    got = dict(zip(EIGHT_LEADS, capezoo.embed(eight, raw, **given).T, strict=True))
    done = capezoo.adaptation(eight, raw, **given)
    assert (done.derived, done.zeroed) == (("I",), ("V1", "V3", "V4", "V5", "V6"))
    for lead in EIGHT_LEADS:
        want = 0 * power["I"] if lead in done.zeroed else power[lead][::-1]
        np.testing.assert_allclose(got[lead], want, rtol=1e-3, atol=1e-7)
    assert "V1 V3 V4 V5 V6 missing, fed as 0 mV" in done.steps(InputSpec())
    with pytest.raises(SpecError, match=r"found no I, II, V1, .* V6 among 1 leads, .* Give them by these names"):
        capezoo.embed(eight, raw[:, :1], rate_hz=500, leads=["aVR"], unit="mV", missing_leads="zero")


def test_one_lead_is_enough_for_weights_of_one_lead(signals, power):
    raw = np.stack(signals)[:, [1]] * 1e-3
    got = capezoo.embed(Lead("II"), raw, rate_hz=500, leads=["lead ii"], unit="V")
    np.testing.assert_allclose(got[:, 0], power["II"][::-1], rtol=2e-2)  # its own zeros are trimmed, not those of all
    steps = capezoo.adaptation(Lead("II"), raw, rate_hz=500, leads=["lead ii"], unit="V").steps(InputSpec())
    assert steps[:3] == ["recipe cape-v1 applied to the raw signal", "V scaled to mV", "500 resampled to 400 Hz"]


def test_what_was_done_is_kept_beside_the_embeddings(store, tmp_path):
    made = embed_store(Lead("V1", "III"), store, tmp_path / "e", missing_leads="derive")
    back = open_embeddings(tmp_path / "e").info.adaptation
    assert back == made.info.adaptation
    assert (back.kind, back.missing_leads, back.derived) == ("store", "derive", ("III",))


def test_another_recipe_is_taken_by_force_only_and_only_if_the_rest_fits(model, store, tmp_path):
    other = replace(store, recipe=CAPE_V1.changed("cape-ref-1"))
    with pytest.raises(RecipeMismatch, match="found recipe 'cape-ref-1'"):
        capezoo.embed(model, other)
    np.testing.assert_array_equal(capezoo.embed(model, other, force_recipe=True), capezoo.embed(model, store))
    info = embed_store(model, other, tmp_path / "e", force_recipe=True).info
    assert info.adaptation.forced == ("recipe 'cape-ref-1' (expected 'cape-v1')",)
    faster = replace(store, recipe=CAPE_V1.changed("cape-ref-1", Resample(rate_hz=500.0)))
    with pytest.raises(RecipeMismatch, match="found rate_hz 500"):
        capezoo.embed(model, faster, force_recipe=True)


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        (CAPE_V1.changed("cape-ref-1"), "recipe 'cape-ref-1'", "expected 'cape-v1'"),
        (CAPE_V1.changed("cape-v1", Resample(rate_hz=500.0)), "rate_hz 500", "expected 400"),
        (CAPE_V1.changed("cape-v1", Cut(strip_s=5.0, window_s=5.0)), "strips of 2000 samples", "at least 2800"),
        (CAPE_V1.changed("cape-v1", Store(lsb_uv=2.0)), "recipe cape-v1 (", "other steps under one name"),
    ],
)
def test_a_store_of_another_kind_is_refused(model, store, change, found, expected):
    other = replace(store, recipe=change)
    with pytest.raises(RecipeMismatch) as caught:
        capezoo.embed(model, other)
    message = str(caught.value)
    assert found in message
    assert expected in message
    assert "Ingest again with recipe 'cape-v1', or use weights made for" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "mmHg"}, "found unit 'mmHg', expected one of V, mV, uV"),
        ({"unit": None}, "found an array without unit, expected rate_hz, leads and unit"),
        ({"rate_hz": None, "leads": None}, "found an array without rate_hz, leads, expected"),
        ({"rate_hz": "fast"}, "the description of the array: found 'fast' for 'rate_hz', expected: .*number"),
        ({"leads": "II"}, "found leads='II', expected a list of names"),
        ({"leads": EIGHT_LEADS}, r"found an array of shape \(1, 12, 5000\), expected \(record, 8 leads, time\)"),
        ({"leads": ("I", "I", *TWELVE_LEADS[2:])}, "found lead I twice, expected each lead once"),
        ({"leads": ("MLII", *TWELVE_LEADS[1:])}, r"found no I among 12 leads.*missing_leads=\"derive\""),
    ],
)
def test_arrays_that_are_not_described_are_refused(model, signals, change, message):
    with pytest.raises((SpecError, RejectedRecording), match=message) as caught:
        capezoo.embed(model, np.stack(signals[:1]), **(WHOLE | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"found an array of shape \(12, 5000\), .* give x\[None\]"),
        (lambda x: x.transpose(0, 2, 1), r"shape \(1, 5000, 12\), .* Give x.transpose\(0, 2, 1\)"),
        (lambda x: x.astype(complex), "found an array of complex128, expected real numbers"),
        (lambda x: x.astype(object), "found an array of object, expected real numbers"),
        (lambda x: x.tolist(), "found list, expected a store, files, recordings, or an array"),
        (lambda x: x * 1000, "record 0: found an amplitude of .* mV, expected 0.1 to 10 mV. Check gain and unit"),
        (lambda x: x / 1000, "record 0: found an amplitude of .* mV, expected 0.1 to 10 mV. Check gain and unit"),
        (lambda x: x * np.nan, "record 0: found nothing but 0 mV or missing samples, expected an ECG"),
        (lambda x: x * 0, "record 0: found nothing but 0 mV or missing samples, expected an ECG"),
        (lambda x: x[:, :, :3000], "record 0: found 6.000 s after trimming, expected at least 7 s"),
        (lambda x: x[:, :, :0], "record 0: found nothing but 0 mV or missing samples, expected an ECG"),
    ],
)
def test_signals_that_cannot_be_meant_are_refused(model, signals, change, message):
    with pytest.raises((SpecError, RejectedRecording), match=message) as caught:
        capezoo.embed(model, change(np.stack(signals[:1])), **WHOLE)
    assert "\n" not in str(caught.value)


def test_a_long_gap_is_refused_and_a_short_one_is_filled(model, signals):
    raw = np.stack(signals[:1])
    raw[0, 3, 2000:2015] = np.nan  # 30 ms, in a lead the weights do not need, too
    raw[0, 7, 2000:2015] = np.nan
    assert np.isfinite(capezoo.embed(model, raw, **WHOLE)).all()
    raw[0, 7, 2400:2500] = np.nan
    with pytest.raises(RejectedRecording, match=r"record 0: found .* broken by gaps, expected at least 7 s without"):
        capezoo.embed(model, raw, **WHOLE)


@pytest.mark.parametrize(("rate_hz", "found"), [(50, "50"), (-500, "-500"), (9000, "9000")])
def test_rates_no_recipe_can_use_are_refused(model, signals, rate_hz, found):
    with pytest.raises(RejectedRecording, match=f"record 0: found {found} samples per second, expected 100 to 8000"):
        capezoo.embed(model, np.stack(signals[:1]), **WHOLE | {"rate_hz": rate_hz})


@pytest.mark.parametrize("leads", [("MLII",), ("I", "I"), ("avr",), ()])
def test_a_contract_names_leads_that_there_are(leads):
    with pytest.raises(SpecError, match=r"in_leads: found .* for 'leads', expected: .*I II III aVR aVL aVF V1"):
        capezoo.create_model(in_leads=list(leads))


def test_a_normalisation_nobody_can_do_is_refused():
    with pytest.raises(SpecError, match="found 'z-score' for 'normalisation'"):
        parse(InputSpec, {"normalisation": "z-score"}, "config.json")


# --- scaling ------------------------------------------------------------------------------------------------------

WITH_STATISTICS = Recipe(name="kept", steps=(*CAPE_V1.steps[:4], RecordStatistics(), *CAPE_V1.steps[4:]))


@pytest.fixture
def kept(store):
    """The same store by a recipe that keeps statistics: lead I stands still in record 0."""
    index = store.index
    rng = np.random.default_rng(1)
    columns = {f"mean_{lead}": rng.normal(0, 0.1, len(index)).astype("f4") for lead in EIGHT_LEADS}
    columns |= {f"deviation_{lead}": rng.uniform(0.2, 0.5, len(index)).astype("f4") for lead in EIGHT_LEADS}
    columns["deviation_I"][0] = 0
    index = CohortIndex({**index.columns, **columns}, index.cohorts, index.sites, index.devices)
    return replace(store, index=index, recipe=WITH_STATISTICS)


def scaled_lead(kind: str, *leads: str, recipe: Recipe = WITH_STATISTICS) -> Lead:
    found = Lead(*leads)
    found.spec = InputSpec(leads=leads, recipe="kept", own_recipe=recipe, normalisation=kind)
    return found


def test_windows_of_a_store_are_scaled_before_the_encoder_sees_them(kept, store):
    start = window_starts(kept.index["valid_start"], kept.index["valid_stop"], 2800)
    strips = store.strips[::-1] * np.float32(0.001)
    windows = np.stack([strip[:, at : at + 2800] for strip, at in zip(strips, start, strict=True)])[:, [0, 4]]
    mean, deviation = (
        np.stack([kept.index[f"{of}_{lead}"] for lead in ("I", "V3")], 1) for of in ("mean", "deviation")
    )
    of_record = capezoo.embed(scaled_lead("record_lead_z", "I", "V3"), kept)
    safe = np.where(deviation > 0, deviation, 1)[..., None]
    expected = np.square((windows - mean[..., None]) / safe).mean(-1) * (deviation > 0)
    np.testing.assert_allclose(of_record, expected, rtol=1e-4)
    pooled = np.sqrt(np.square(deviation).mean(0) + mean.var(0))
    of_cohort = capezoo.embed(scaled_lead("cohort_lead_z", "I", "V3"), kept)
    np.testing.assert_allclose(
        of_cohort, np.square((windows - mean.mean(0)[:, None]) / pooled[:, None]).mean(-1), rtol=1e-4
    )
    np.testing.assert_allclose(capezoo.embed(scaled_lead("window_lead_z", "I", "V3"), kept), 1.0, rtol=1e-4)
    other = kept_without(kept, "II")  # so that aVL cannot be derived
    asks = scaled_lead("record_lead_z", "I", "V3", "aVL", recipe=other.recipe)
    zeroed = capezoo.embed(asks, other, missing_leads="zero")
    np.testing.assert_allclose(zeroed, np.concatenate([expected, np.zeros((5, 1))], 1), rtol=1e-4)
    steps = capezoo.adaptation(scaled_lead("min_max", "V3"), kept).steps(scaled_lead("min_max", "V3").spec)
    assert "scaled by min_max" in steps


def kept_without(store, lead: str):
    """The store as if a lead had never been recorded."""
    leads = [one for one in EIGHT_LEADS if one != lead]
    recipe = WITH_STATISTICS.changed("kept", SelectLeads(leads=tuple(leads)))
    return replace(store, recipe=recipe, strips=store.strips[:, [EIGHT_LEADS.index(one) for one in leads]])


def test_scalings_that_need_more_than_is_known_are_refused(kept, store, signals):
    with pytest.raises(SpecError, match=r"found aVL to derive, expected leads whose statistics ingest has kept"):
        capezoo.embed(scaled_lead("record_lead_z", "aVL"), kept, missing_leads="derive")
    plain = Lead("I")
    plain.spec = InputSpec(leads=("I",), normalisation="cohort_lead_z")
    with pytest.raises(SpecError, match=r"recipe cape-v1, which keeps no statistics .* for cohort_lead_z"):
        capezoo.embed(plain, store)
    with pytest.raises(SpecError, match=r"raw signals have not\. Ingest the recordings"):
        capezoo.embed(scaled_lead("cohort_lead_z", "I"), np.stack(signals), **WHOLE)
    plain.spec = InputSpec(leads=("I",), normalisation="record_lead_z")
    with pytest.raises(SpecError, match=r"recipe cape-v1: keeps no statistics of whole recordings"):
        capezoo.embed(plain, np.stack(signals), **WHOLE)
