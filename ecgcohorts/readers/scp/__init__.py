"""SCP-ECG (EN 1064, ISO 11073-91064): the rhythm of section 6, reference beats added back; never the beat of section 5.

Source: the standard's sections 0 to 6 as two public implementations read them. Every checksum is verified.
"""

from ecgcohorts.readers.scp.reader import SUFFIXES, VARIANTS, read, scan
from ecgcohorts.readers.scp.sections import sniff

__all__ = ["SUFFIXES", "VARIANTS", "read", "scan", "sniff"]
