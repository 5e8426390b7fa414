"""`devices: known` keeps a known maker and model of a device's text, and nothing that could be a serial number."""

import json
import re

import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.cohorts._devices import _known_device
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.ingest import ingest

# What is kept of what headers and tables of public cohorts and of makers' example files state.
KEPT = {
    "AT-6 C 5.8": "AT-6 C",
    "AT-6 6": "AT-6",
    "AT-60 3": "AT-60",
    "CS-12 E": "CS-12",
    "CS100 3": "CS100",
    "MAC 5500": "MAC 5500",
    "MAC5500 HD": "MAC5500 HD",
    "MAC 1600": "MAC 1600",
    "GE Healthcare MAC VU360 SN TYR21490037PA": "GE MAC VU360",
    "Philips PageWriter TC50 US81234567": "Philips PageWriter TC50",
    "PageWriter Trim III": "PageWriter Trim III",
    "Mortara ELI 250c 112340001234": "Mortara ELI 250c",
    "ELI250": "ELI250",
    "nihon kohden, bed 12": "Nihon Kohden",
    "Hewlett Packard 4745A": "Hewlett-Packard 4745A",
    "KardiaMobile 6L": "KardiaMobile 6L",
}
NOTHING_KNOWN = (
    "77123",
    "SN-0001234",
    "Ward 7 Mrs. Example",
    "MAC 55001234",
    "XMAC 5500",
    "ELI",
    "AT-6000123",
    "GEORGE",
    "TC5012",
)


@pytest.mark.parametrize(("stated", "kept"), KEPT.items())
def test_maker_and_model_are_kept(stated, kept):
    assert _known_device(stated) == kept


@pytest.mark.parametrize("stated", NOTHING_KNOWN)
def test_what_is_not_known_is_left_out(stated):
    assert _known_device(stated) is None


def test_no_number_of_five_digits_is_ever_kept():
    for stated in KEPT:
        for serial in ("12345", "A1234567", "99999999"):
            for text in (f"{stated} {serial}", f"{serial} {stated}", f"{stated}/{serial}", f"{stated}_{serial}"):
                assert not re.search(r"\d{5}", _known_device(text) or ""), text


@pytest.mark.parametrize("devices", ["as_stated", "known"])
def test_a_serial_number_in_the_headers(make_cohort, tmp_path, devices, capsys):
    raw = make_cohort(patients=0)
    raw.spec.write_text(f"devices: {devices}\n{raw.spec.read_text()}    device: {{header: Device}}\n")
    made = make_cohort("south", patients=2)
    raw.folder.mkdir()
    for number, path in enumerate(sorted(made.folder.glob("*.hea"))):
        raw.folder.joinpath(path.name).write_text(f"{path.read_text()}# Device: MAC 5500 SN CANARY{number}\n")
        path.with_suffix(".dat").rename(raw.folder / f"{path.stem}.dat")
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    index = ec.open(tmp_path / "s.zarr").index
    expected = ("MAC 5500",) if devices == "known" else tuple(f"MAC 5500 SN CANARY{number}" for number in range(3))
    assert sorted(index.devices) == list(expected)
    main(["verify", str(tmp_path / "s.zarr"), "--against", str(raw.folder), "--cohort", str(raw.spec), "--json"])
    assert json.loads(capsys.readouterr().out)["ok"]
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("s.zarr/**/*") if path.is_file())
    assert (b"CANARY" in everything) is (devices == "as_stated")


def test_descriptions_without_the_option_keep_their_digest(make_cohort):
    spec = make_cohort(patients=0).spec
    text, digests = spec.read_text(), []
    for more in ("", "devices: as_stated\n", "devices: known\n"):
        spec.write_text(more + text)
        digests.append(CohortSpec.load(str(spec)).sha256)
    assert digests[0] == digests[1] != digests[2]
