"""GE MUSE XML (`RestingECG`): the rhythm waveform, never the median beat that comes before it.

Sources: `restecg.dtd` and decoded exports of MUSE 7.1 and 9.0; every lead may carry a CRC-32 of its samples.
"""

from ecgcohorts.readers.muse_xml.reader import SUFFIXES, VARIANTS, read, scan, sniff

__all__ = ["SUFFIXES", "VARIANTS", "read", "scan", "sniff"]
