"""MUSE files of any shape come back as they were written, and as another library reads them."""

import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers import muse_xml

PER_BIT = ("4.88", "5", "-10", "1", "0.00488")
UNITS = {"MICROVOLTS": 1e-3, "MILLIVOLTS": 1.0, "VOLTS": 1e3}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_rhythm_comes_back(muse_files: ModuleType, data: st.DataObject) -> None:
    leads = data.draw(st.lists(st.sampled_from([*TWELVE_LEADS, "V3R", "X"]), min_size=1, max_size=12, unique=True))
    seed, seconds = data.draw(st.integers(0, 999)), data.draw(st.floats(2.0, 4.0))
    rate = data.draw(st.sampled_from(["250", "500", "1000"]))
    per_bit, unit = data.draw(st.sampled_from(PER_BIT)), data.draw(st.sampled_from(list(UNITS)))
    kind = data.draw(st.sampled_from(["Rhythm", "RHYTHM", None]))
    digital = np.random.default_rng(seed).integers(-32767, 32768, (len(leads), round(seconds * int(rate)) + 1))
    lead = {"LeadAmplitudeUnitsPerBit": per_bit, "LeadAmplitudeUnits": unit}
    if data.draw(st.booleans()):
        lead["LeadDataCRC32"] = None
    text = muse_files.document(
        muse_files.median_xml(len(leads)), muse_files.waveform_xml(digital, kind, leads, rate, lead=lead)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.xml"
        path.write_text(text, "iso-8859-1")
        (found,) = muse_xml.read(path)
    assert found.leads == tuple(leads)
    assert found.rate_hz == float(rate)
    assert np.array_equal(found.digital, digital)
    np.testing.assert_allclose(found.signal_mv, digital * (float(per_bit) * UNITS[unit]), rtol=1e-12)


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:auto_scale=False")
@pytest.mark.parametrize("name", ["braveheart_example1", "braveheart_example2"])
def test_ecgdatakit_reads_the_same_integers(name: str, shared: Path) -> None:
    ecgdatakit = pytest.importorskip("ecgdatakit")
    path = shared / "vendor" / "ge_muse_xml" / f"{name}.xml"
    (ours,) = muse_xml.read(path)
    theirs = {lead.label: lead for lead in ecgdatakit.FileParser().parse(path, auto_scale=False).leads}
    for place, lead in enumerate(ours.leads):
        assert theirs[lead].sampling_rate == ours.rate_hz
        assert np.array_equal(np.asarray(theirs[lead].samples), ours.digital[place]), lead
