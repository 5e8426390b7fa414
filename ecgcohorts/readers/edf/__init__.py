"""European Data Format: EDF, EDF+ and BioSemi's BDF. One ASCII header, then records of integers.

Sources: Kemp et al. 1992; the specification at edfplus.info; BioSemi's description of BDF.
"""

from ecgcohorts.readers.edf.header import sniff
from ecgcohorts.readers.edf.reader import LONG, SUFFIXES, VARIANTS, read, scan

__all__ = ["LONG", "SUFFIXES", "VARIANTS", "read", "scan", "sniff"]
