"""Estimate what a run will take, from its plan alone."""

from dataclasses import dataclass
from typing import Self

from ecgcohorts import plugins
from ecgcohorts.cohorts.files import Found
from ecgcohorts.ingest.plan import PlanHeader
from ecgcohorts.io.buckets import is_url
from ecgcohorts.readers import KIND

# Measured with 200,000 simulated recordings, WFDB and XML, on a core of 2.8 GHz (docs/benchmarks.md).
_SECONDS_A_RECORDING = 0.0105
_COMPRESSED = 0.54
_NAMES_A_LISTING = 1000  # S3's largest page


@dataclass(frozen=True)
class _Cost:
    """An estimate, good to a factor of two or three: signals compress unlike, and so do formats."""

    store_bytes: int  # by which the store grows
    core_seconds: float  # of one process; two take half of it, as far as disk or line keep up
    requests: int  # to the object store that holds the source; 0 for a folder or an archive

    @classmethod
    def of(cls, header: PlanHeader, files: Found) -> Self:
        rows, strip = header.n_rows, len(header.recipe.leads) * header.recipe.strip_samples * 2
        requests = 0
        if is_url(files.source.address):
            several = 2 if hasattr(plugins.load(KIND, files.layout.reader), "beside") else 1
            inputs = header.n_inputs + header.known
            # The plan reads a file of each recording, the encoder all of them, with one request each.
            requests = inputs * several // _NAMES_A_LISTING + 1 + inputs + several * rows
        return cls(round(rows * strip * _COMPRESSED), rows * _SECONDS_A_RECORDING, requests)

    def __str__(self) -> str:
        hours, minutes = self.core_seconds / 3600, self.core_seconds / 60
        took = (
            f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 1 else f"{self.core_seconds:.0f} s"
        )
        asked = f", {self.requests:,} requests" if self.requests else ""
        return f"a run would take about {self.store_bytes / 1e6:,.1f} MB of store and {took} of one core{asked}"
