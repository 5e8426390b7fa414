"""DICOM waveforms (12-lead, general and ambulatory ECG, hemodynamic): the recorded rhythm, never a median beat.

The structure is walked and the waveform decoded here; pydicom decodes the attributes of patient and device.
Sources: DICOM PS3.3, section C.10.9; PS3.5; PS3.10, chapter 7.
"""

from ecgcohorts.readers.dicom.reader import NEEDS, SUFFIXES, VARIANTS, read, scan, sniff

__all__ = ["NEEDS", "SUFFIXES", "VARIANTS", "read", "scan", "sniff"]
