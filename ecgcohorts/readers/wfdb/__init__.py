"""WFDB records: a text header (.hea) and signal files beside it.

Common records (one segment, integer formats, one sample per frame) are parsed and decoded here, and every declared
length, checksum and first value is verified. Everything else (several segments or rates, skewed signals, FLAC) goes
through the `wfdb` package, with the same checks around it. Source: the WFDB specification, header(5) and signal(5).
"""

from ecgcohorts.readers.wfdb.header import sniff
from ecgcohorts.readers.wfdb.reader import BESIDE, LONG, NEEDS, SUFFIXES, VARIANTS, beside, read, scan

__all__ = ["BESIDE", "LONG", "NEEDS", "SUFFIXES", "VARIANTS", "beside", "read", "scan", "sniff"]
