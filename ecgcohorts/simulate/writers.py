"""Write raw files as hospitals export them: WFDB records, GE MUSE XML or CODE-style HDF5, with a `cohort.yaml`.

Each writer takes the folder, the number of exams and the exams, and keeps the device's integers exactly. Bytes depend on
the exams only: on no clock, host name or random order.
"""

import base64
import csv
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, select
from ecgcohorts.simulate.exams import Exam
from ecgcohorts.simulate.hospitals import Export, Hospital

# Length of a CODE-15 % tracing; shorter exams have zeros at both ends.
CODE_SAMPLES = 4096
MEDIAN_S = 1.2  # GE MUSE: 600 samples at 500 Hz
MEDIAN_R_AT = 0.42  # time of the R wave in it, as a share of its length
BASE64_LINE = 76


def _twelve_leads(exam: Exam) -> NDArray[np.int32]:
    """Return (12, time) integers: lead III is exact, the augmented leads are within half a step."""
    return np.rint(select(exam.digital.astype(np.float64), EIGHT_LEADS, TWELVE_LEADS)).astype(np.int32)


def _write_wfdb(folder: Path, count: int, exams: Iterable[Exam]) -> None:
    """Write a header and a format-16 file for each exam, below `records`, 100 patients to a folder, like PTB-XL."""
    for exam in exams:
        visit, device = exam.visit, exam.visit.hospital.device
        below = folder / "records" / f"{visit.patient_number // 100:03d}00"
        below.mkdir(parents=True, exist_ok=True)
        samples = _twelve_leads(exam)
        name = visit.recording_id
        when = visit.acquired_at.strftime("%H:%M:%S %d/%m/%Y")
        lines = [f"{name} 12 {device.rate_hz:g} {samples.shape[1]} {when}"]
        for lead, row in zip(TWELVE_LEADS, samples, strict=True):
            checksum = int(row.sum(dtype=np.int64)) & 0xFFFF
            lines.append(f"{name}.dat 16 {device.gain_per_mv:g}(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
        lines += [
            f"# Patient ID: {visit.patient_id}",
            f"# Age: {int(visit.age_years)}",
            f"# Sex: {visit.sex.capitalize()}",
        ]
        lines.append(f"# Device: {device.name}")
        (below / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="ascii")
        (below / f"{name}.dat").write_bytes(np.ascontiguousarray(samples.T, "<i2").tobytes())


def _write_muse_xml(folder: Path, count: int, exams: Iterable[Exam]) -> None:
    """Write a RestingECG document for each exam: demographics, the median beat, then the rhythm, in eight leads."""
    for exam in exams:
        visit = exam.visit
        below = folder / f"{visit.acquired_at:%Y}"
        below.mkdir(parents=True, exist_ok=True)
        path = below / f"MUSE_{visit.acquired_at:%Y%m%d_%H%M%S}_{visit.recording_id}.xml"
        path.write_text(_muse_document(exam), encoding="iso-8859-1", newline="\n")


def _muse_document(exam: Exam) -> str:
    visit, device = exam.visit, exam.visit.hospital.device
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE RestingECG SYSTEM "restecg.dtd">
<RestingECG>
   <MuseInfo>
      <MuseVersion>9.0.0.0</MuseVersion>
   </MuseInfo>
   <PatientDemographics>
      <PatientID>{visit.patient_id}</PatientID>
      <PatientAge>{int(visit.age_years)}</PatientAge>
      <AgeUnits>YEARS</AgeUnits>
      <Gender>{visit.sex.upper()}</Gender>
   </PatientDemographics>
   <TestDemographics>
      <DataType>RESTING</DataType>
      <Site>1</Site>
      <SiteName>{visit.hospital.name}</SiteName>
      <AcquisitionDevice>{device.name}</AcquisitionDevice>
      <Status>CONFIRMED</Status>
      <AcquisitionTime>{visit.acquired_at:%H:%M:%S}</AcquisitionTime>
      <AcquisitionDate>{visit.acquired_at:%m-%d-%Y}</AcquisitionDate>
   </TestDemographics>
{_muse_waveform("Median", exam, _median_beat(exam))}{_muse_waveform("Rhythm", exam, exam.digital)}</RestingECG>
"""


def _muse_waveform(kind: str, exam: Exam, samples: NDArray[np.int32]) -> str:
    device = exam.visit.hospital.device
    leads = "".join(_muse_lead(lead, row, device.step_uv) for lead, row in zip(EIGHT_LEADS, samples, strict=True))
    return f"""   <Waveform>
      <WaveformType>{kind}</WaveformType>
      <WaveformStartTime>0</WaveformStartTime>
      <NumberofLeads>{len(samples)}</NumberofLeads>
      <SampleType>CONTINUOUS_SAMPLES</SampleType>
      <SampleBase>{device.rate_hz:g}</SampleBase>
      <SampleExponent>0</SampleExponent>
      <HighPassFilter>{round(100 * device.highpass_hz)}</HighPassFilter>
      <LowPassFilter>{device.lowpass_hz:g}</LowPassFilter>
      <ACFilter>NONE</ACFilter>
{leads}   </Waveform>
"""


def _muse_lead(lead: str, row: NDArray[np.int32], step_uv: float) -> str:
    data = row.astype("<i2").tobytes()
    text = base64.b64encode(data).decode("ascii")
    wrapped = "\n".join(text[first : first + BASE64_LINE] for first in range(0, len(text), BASE64_LINE))
    return f"""      <LeadData>
         <LeadByteCountTotal>{len(data)}</LeadByteCountTotal>
         <LeadTimeOffset>0</LeadTimeOffset>
         <LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal>
         <LeadAmplitudeUnitsPerBit>{step_uv:g}</LeadAmplitudeUnitsPerBit>
         <LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>
         <LeadHighLimit>32767</LeadHighLimit>
         <LeadLowLimit>-32768</LeadLowLimit>
         <LeadID>{lead}</LeadID>
         <LeadOffsetFirstSample>0</LeadOffsetFirstSample>
         <FirstSampleBaseline>0</FirstSampleBaseline>
         <LeadSampleSize>2</LeadSampleSize>
         <LeadOff>FALSE</LeadOff>
         <BaselineSway>FALSE</BaselineSway>
         <LeadDataCRC32>{zlib.crc32(data)}</LeadDataCRC32>
         <WaveFormData>
{wrapped}
         </WaveFormData>
      </LeadData>
"""


def _median_beat(exam: Exam) -> NDArray[np.int32]:
    """Return the median of the sinus beats, (8, MEDIAN_S * rate), aligned at the middle of the QRS; zeros if there is none."""
    length = round(MEDIAN_S * exam.visit.hospital.device.rate_hz)
    first = exam.r_samples - round(MEDIAN_R_AT * length)
    first = first[(first >= 0) & (first + length <= exam.digital.shape[1])]
    if not len(first):
        return np.zeros((len(exam.digital), length), np.int32)
    beats = exam.digital[:, first[:, None] + np.arange(length)]
    return np.rint(np.median(beats, axis=1)).astype(np.int32)


EXAM_COLUMNS = (
    "exam_id", "age", "is_male", "nn_predicted_age", "1dAVb", "RBBB", "LBBB", "SB", "AF", "ST",
    "patient_id", "death", "timey", "normal_ecg", "trace_file",
)  # fmt: skip
# Limits as in the published annotation protocol (Ribeiro et al., Nat Commun 2020;11:1760).
AV_BLOCK_MS, BRADYCARDIA, TACHYCARDIA = 200, 50, 100


def _write_code_hdf5(folder: Path, count: int, exams: Iterable[Exam]) -> None:
    """Write `exams_part0.hdf5` and `exams.csv` in the layout of CODE-15 %.

    tracings: (exam, 4096, 12) float32 mV, exam_id: (exam,). Only exam_id joins the two files.
    """
    # Here, because it is slow to load and only this format needs it.
    import h5py

    rows = []
    with h5py.File(folder / "exams_part0.hdf5", "w", libver=("v110", "v110")) as file:
        shape = (count, CODE_SAMPLES, len(TWELVE_LEADS))
        ids = np.empty(count, np.int64)
        tracings = file.create_dataset(
            "tracings", shape, "<f4", chunks=(1, *shape[1:]), compression="gzip", compression_opts=1, shuffle=True
        )
        for number, exam in enumerate(exams):
            tracings[number] = _code_tracing(exam)
            ids[number] = int(exam.visit.recording_id)
            rows.append(_exam_row(exam))
        file.create_dataset("exam_id", data=ids)
    with (folder / "exams.csv").open("w", newline="", encoding="ascii") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(EXAM_COLUMNS)
        # In another order than the tracings, because the published table is in no order either.
        writer.writerows(reversed(rows))


def _code_tracing(exam: Exam) -> NDArray[np.float32]:
    """Return (4096, 12) float32 mV, centred between zeros."""
    step_mv = exam.visit.hospital.device.step_uv / 1000
    signal = select(exam.digital * step_mv, EIGHT_LEADS, TWELVE_LEADS)
    tracing = np.zeros((CODE_SAMPLES, len(TWELVE_LEADS)), np.float32)
    start = (CODE_SAMPLES - signal.shape[1]) // 2
    tracing[start : start + signal.shape[1]] = signal.T
    return tracing


def _exam_row(exam: Exam) -> list[object]:
    visit, truth = exam.visit, exam.truth
    block = truth["pr_ms"] > AV_BLOCK_MS
    slow, fast = truth["heart_rate_bpm"] < BRADYCARDIA, truth["heart_rate_bpm"] > TACHYCARDIA
    normal = not (block or slow or fast or truth["ectopic_beats"])
    return [
        visit.recording_id, int(visit.age_years), visit.sex == "male", "", block, False, False, slow, False, fast,
        visit.patient_id, "", "", normal, "exams_part0.hdf5",
    ]  # fmt: skip


WRITERS = {"wfdb": _write_wfdb, "muse_xml": _write_muse_xml, "code_hdf5": _write_code_hdf5}

_LAYOUTS: dict[Export, dict[str, Any]] = {
    "wfdb": {
        "reader": "wfdb",
        "files": {"include": ["records/**/*.hea"]},
        "recording": {"path": r"([^/]+)\.hea$"},
        "patient": {"header": "Patient ID"},
        "age": {"header": "Age"},
        "sex": {"header": "Sex"},
        "device": {"header": "Device"},
    },
    "muse_xml": {"reader": "muse_xml", "files": {"include": ["*/*.xml"]}, "recording": {"path": r"_(\d+)\.xml$"}},
    "code_hdf5": {
        "reader": "code_hdf5",
        "files": {"include": ["exams_part*.hdf5"]},
        "tables": [{"name": "exams", "file": "exams.csv", "key": "exam_id", "match": "entry"}],
        "recording": {"path": "#(.+)$"},
        "patient": {"column": "patient_id"},
        "age": {"column": "age"},
        "sex": {"column": "is_male"},
        "sex_codes": {"True": "male", "False": "female"},
        "labels": {
            "avb1": {"find": {"column": "1dAVb"}},
            "sb": {"find": {"column": "SB"}},
            "st": {"find": {"column": "ST"}},
        },
    },
}


def write_cohort_yaml(folder: Path, hospital: Hospital) -> None:
    """Write the description of the folder, for `ecgcohorts ingest FOLDER STORE --cohort FOLDER/cohort.yaml`."""
    import yaml

    description = {
        "name": hospital.name,
        "title": hospital.title,
        "licence": "CC0-1.0",
        "citation": "made by ecgcohorts simulate",
        "mains_hz": hospital.device.mains_hz,
        "layouts": [{**_LAYOUTS[hospital.export], "site": {"constant": hospital.name}}],
    }
    if hospital.export == "wfdb":
        description["expected_gain_per_mv"] = hospital.device.gain_per_mv
    (folder / "cohort.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8", newline="\n")
