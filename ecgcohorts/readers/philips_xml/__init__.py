"""Philips resting ECG XML (`restingecgdata`): SierraECG 1.03, PhilipsECG 1.04, 1.04.01 and 1.04.02.

Sources: the comments of the published schemas, and decoded files of four devices. The format has no checksum; that
every compressed lead gives exactly the declared number of samples is its only proof.
"""

from ecgcohorts.readers.philips_xml.reader import SUFFIXES, VARIANTS, read, scan, sniff

__all__ = ["SUFFIXES", "VARIANTS", "read", "scan", "sniff"]
