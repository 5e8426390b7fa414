"""A store of the compact codec is the same store in fewer bytes, through everything that rewrites signals."""

import re
import sys
import warnings

import numpy as np
import pytest
import zarr

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.errors import install_line
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.store.signals import chunks
from ecgcohorts.store.upkeep.compact import compact
from ecgcohorts.store.upkeep.remove import remove_patient

COMPACT = IngestOptions(codec="pcodec", shard_records=4)


@pytest.fixture
def raw(make_cohort):
    return make_cohort(patients=5)


def test_the_same_strips_in_a_form_that_zarr_reads(raw, tmp_path):
    for name, options in (("lz4.zarr", IngestOptions(shard_records=4)), ("pcodec.zarr", COMPACT)):
        ingest(raw.folder, tmp_path / name, str(raw.spec), options)
        assert ec.verify(tmp_path / name).ok  # reads through zarr-python too
    plain, packed = ec.open(tmp_path / "lz4.zarr"), ec.open(tmp_path / "pcodec.zarr")
    rows = plain.index["row"]
    np.testing.assert_array_equal(packed.read(rows), plain.read(rows))
    assert (plain.manifest.codec, packed.manifest.codec) == ("lz4", "pcodec")
    with warnings.catch_warnings():
        # Older releases of zarr warn that such codecs are no part of the specification of Zarr 3.
        warnings.filterwarnings("ignore", "Numcodecs codecs", UserWarning)
        reference = zarr.open_array(tmp_path / "pcodec.zarr" / packed.segments[0].folder, mode="r")
    np.testing.assert_array_equal(reference[:], packed.read(np.arange(packed.n_rows)))


def test_later_runs_keep_the_codec_and_another_is_refused(raw, tmp_path):
    folder = tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec), COMPACT)
    raw.add("later", np.roll(next(iter(raw.signals.values())), 400, axis=1), **{"Patient ID": "P9"})
    with pytest.raises(ec.SpecError, match=r"codec pcodec, expected lz4.*--codec pcodec"):
        ingest(raw.folder, folder, str(raw.spec), IngestOptions(codec="lz4"))
    assert ingest(raw.folder, folder, str(raw.spec)).total.stored == 1
    assert ec.open(folder).manifest.codec == "pcodec"
    assert ec.verify(folder).ok


def test_compacting_and_removing_keep_the_codec(raw, tmp_path):
    folder = tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec), COMPACT)
    samples = next(iter(raw.signals.values()))
    raw.add("later", np.roll(samples, 400, axis=1), **{"Patient ID": "CANARYPAT0003"}, Date="2020-01-01T00:00:00")
    ingest(raw.folder, folder, str(raw.spec))
    before = ec.open(folder)
    digests = before.index["waveform_digest"]
    strips = {digest.tobytes(): before.read(row)[0] for digest, row in zip(digests, before.index["row"], strict=True)}
    compact(folder)
    remove_patient(folder, "north", "CANARYPAT0001")
    after = ec.open(folder)
    assert len(after.index) < len(before.index)
    for digest, row in zip(after.index["waveform_digest"], after.index["row"], strict=True):
        np.testing.assert_array_equal(after.read(row)[0], strips[digest.tobytes()])
    assert ec.verify(folder).ok


def test_without_the_package_the_remedy_is_named(raw, tmp_path, monkeypatch):
    chunks._pcodec.cache_clear()
    monkeypatch.setitem(sys.modules, "pcodec", None)
    with pytest.raises(ec.SpecError, match=rf"found no pcodec here.*{re.escape(install_line('compact'))}"):
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), COMPACT)
    monkeypatch.undo()
    chunks._pcodec.cache_clear()


def test_from_the_command_line(raw, tmp_path, capsys):
    store = str(tmp_path / "s.zarr")
    main(["ingest", str(raw.folder), store, "--cohort", str(raw.spec), "--codec", "pcodec"])
    main(["info", store])
    assert "codec pcodec" in capsys.readouterr().out
