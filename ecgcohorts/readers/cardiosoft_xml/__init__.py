"""GE CardioSoft XML (`CardiologyXML`), as UK Biobank gives it out: resting strips, and full disclosure of stress tests.

Sources: layouts published with readers of UK Biobank fields 20205 and 6025 (BRAVEHEART, ml4h). No sample file exists.
"""

from ecgcohorts.readers.cardiosoft_xml.reader import SUFFIXES, VARIANTS, read, scan, sniff

__all__ = ["SUFFIXES", "VARIANTS", "read", "scan", "sniff"]
