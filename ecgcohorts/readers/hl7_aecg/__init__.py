"""HL7 annotated ECG (`AnnotatedECG`): the rhythm series, never the representative beats nested inside it.

Sources: HL7 aECG implementation guide (2005) and decoded exports of Mortara, AMPS CalECG, Mindray and Philips.
"""

from ecgcohorts.readers.hl7_aecg.reader import SUFFIXES, VARIANTS, read, scan, sniff

__all__ = ["SUFFIXES", "VARIANTS", "read", "scan", "sniff"]
