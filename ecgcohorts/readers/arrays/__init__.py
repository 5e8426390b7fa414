"""Bare arrays of numbers: text, NumPy, HDF5 and MATLAB files, read by a manifest that states what they do not.

A manifest is a YAML file in the folder of the data. Its first key is `ecg_arrays: 1`, its last line is `files: [...]`,
and between them stand the fields of ArrayDescription. Rate, unit, leads and orientation are never guessed.
"""

from ecgcohorts.readers.arrays.manifest import sniff
from ecgcohorts.readers.arrays.reader import ISOLATED, NEEDS, SUFFIXES, VARIANTS, beside, described, read, scan

__all__ = ["ISOLATED", "NEEDS", "SUFFIXES", "VARIANTS", "beside", "described", "read", "scan", "sniff"]
