"""Refuse a limit on memory that the libraries we load cannot live with, before they are loaded."""

import ctypes
import os
from contextlib import suppress

_LEAST_BYTES = 1 << 30  # address space; an ingest, the largest command, needs 0.7 GB of it, most of it never used
_PER_CPU_BYTES = (
    1 << 27
)  # 64 MiB of malloc, 8 MiB of stack and 32 MiB of OpenBLAS a thread, each a thread per processor
_M_ARENA_MAX = -8  # mallopt(3)


def _complaint_about_memory() -> str:
    """Say what is wrong with the limit on address space of this process (`ulimit -v`); "" if nothing is.

    With less room than all threads ask for, but enough, libraries loaded later start one thread each.
    """
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, AttributeError, OSError):  # Windows and some others have no such limit
        return ""
    if limit == resource.RLIM_INFINITY:
        return ""
    # Below, OpenBLAS asks for its memory again and again at full load, and pyarrow waits for a thread that could not
    # start: both for ever, where nothing of ours runs any more.
    if limit < _LEAST_BYTES:
        return (
            f"found a limit of {limit >> 20:,} MiB on memory, expected {_LEAST_BYTES >> 20:,} MiB or more. Raise it: "
            "ulimit -v unlimited."
        )
    if limit < _LEAST_BYTES + _PER_CPU_BYTES * (os.cpu_count() or 1):
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ARROW_IO_THREADS"):
            os.environ.setdefault(name, "1")
        with suppress(OSError, AttributeError, TypeError):  # of glibc only
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    return ""
