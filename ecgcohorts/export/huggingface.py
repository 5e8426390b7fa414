"""Export Parquet files and a dataset card: a folder that `datasets.load_dataset` opens and the Hub shows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ecgcohorts.errors import SpecError
from ecgcohorts.export.common import (
    READ_AT_ONCE,
    SIGNALS,
    Parts,
    Progress,
    Samples,
    choose_parts,
    signal_facts,
    whole_folder,
)
from ecgcohorts.index.cohort_index import LABEL
from ecgcohorts.store.reader import AnyStore

# Bytes of unpacked signal in a file, about half of that on disk. The Hub advises files below 500 MB.
FILE_BYTES = 1 << 29
_TYPES = {
    "age": pa.float32(),
    "sex": pa.string(),
    "valid_start": pa.int32(),
    "valid_stop": pa.int32(),
    "quality": pa.uint32(),
}
_SAMPLE = "signal.list.element.list.element"  # Parquet's path of a sample
_CARD = """\
---
configs:
- config_name: default
  data_files:
{files}
---

# ECGs of {cohorts}

`signal` is int16 ({leads} leads, {samples} samples) at {rate_hz:g} Hz: one step is {step}, {missing} means that there
is no sample. Leads: {names}. Valid samples of a strip: `valid_start` to `valid_stop`. `recording_id` and `patient_id` are
pseudonyms; `null` is unknown. `signals.json` says the same for programs.

```python
import numpy as np
from datasets import load_dataset

strips = load_dataset("path/to/this/folder", split="{first}").with_format("numpy", dtype=np.int16, columns=["signal"])
{signal} = strips[0]["signal"] * {a_step:g}
```

Written by ecgcohorts from recordings prepared by the recipe {recipe}. The terms of the cohorts hold for this copy as well.
"""


def export_huggingface(
    store: AnyStore, out: Path, progress: Progress | None = None, *, parts: Parts | None = None
) -> int:
    """Write OUT/data/<part>-00000-of-00012.parquet, OUT/README.md and OUT/signals.json. Return the number of recordings.

    Columns: signal (int16 of fixed shape), recording_id, patient_id, cohort, age, sex, valid_start, valid_stop, quality,
    label_... parts: what Hugging Face calls splits; by default one part with all recordings. Holds READ_AT_ONCE strips in
    memory. The same store gives the same bytes on one version of pyarrow. Raises SourceError if OUT exists or lies in
    the store, SpecError for an empty part or a name that Hugging Face does not accept.
    """
    parts, told = choose_parts(store, parts, progress)
    for name in parts:
        if "-" in name:
            raise SpecError(
                f"found a part {name!r}, expected a name without '-': Hugging Face allows letters, digits, _."
            )
    with whole_folder(store, out) as folder:
        (folder / "data").mkdir()
        strip_bytes = 2 * len(store.recipe.leads) * store.recipe.strip_samples
        # A multiple of READ_AT_ONCE, so that each read of strips makes one row group.
        in_file = max(FILE_BYTES // strip_bytes // READ_AT_ONCE, 1) * READ_AT_ONCE
        for name, index in parts.items():
            schema = _schema(store, index.labels)
            files = -(-len(index) // in_file)
            samples = Samples.read(store, index)
            for number in range(files):
                path = folder / "data" / f"{name}-{number:05d}-of-{files:05d}.parquet"
                with _writer(path, schema) as writer:
                    for _, part in zip(range(in_file // READ_AT_ONCE), samples, strict=False):
                        writer.write_table(_table(part, schema), row_group_size=READ_AT_ONCE)
                        told(len(part))
        (folder / SIGNALS).write_text(json.dumps(signal_facts(store), indent=1) + "\n", encoding="ascii")
        (folder / "README.md").write_text(_card(store, parts), encoding="utf-8")
    return sum(len(index) for index in parts.values())


def _schema(store: AnyStore, labels: list[str]) -> pa.Schema:
    # List types of fixed length, so that a signal loads as an array of one shape and not as lists of lists.
    leads, samples = len(store.recipe.leads), store.recipe.strip_samples
    types = {name: pa.string() for name in ("recording_id", "patient_id", "cohort")} | _TYPES
    types |= {f"{LABEL}{name}": pa.float32() for name in labels}
    fields = [pa.field("signal", pa.list_(pa.list_(pa.int16(), samples), leads))]
    fields += [pa.field(name, kind) for name, kind in types.items()]
    return pa.schema(fields, {"ecgcohorts": json.dumps(signal_facts(store))})


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Differences of neighbouring samples in as few bits as they need: 26 KB a strip, where zstd alone takes 42.
    texts = [field.name for field in schema if field.type == pa.string()]
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=texts, column_encoding={_SAMPLE: "DELTA_BINARY_PACKED"}
    )


def _table(samples: Samples, schema: pa.Schema) -> pa.Table:
    _, leads, time = samples.strips.shape
    rows = pa.FixedSizeListArray.from_arrays(pa.array(samples.strips.reshape(-1)), time)
    return pa.table({"signal": pa.FixedSizeListArray.from_arrays(rows, leads), **samples.columns}, schema=schema)


def _card(store: AnyStore, parts: Parts) -> str:
    facts = signal_facts(store)
    there = {code for index in parts.values() for code in set(index["cohort"].tolist())}
    files = "\n".join(f"  - split: {name}\n    path: data/{name}-*.parquet" for name in parts)
    described = facts | {"leads": len(facts["leads"]), "names": ", ".join(facts["leads"]), "files": files}
    cohorts = ", ".join(store.index.cohorts[code] for code in sorted(there))
    a_step, in_mv = store.recipe.lsb_uv / 1000, store.recipe.unit == "mV"
    described["step"] = f"{1000 * a_step:g} microvolts" if in_mv else f"{a_step:g} of a number without a unit"
    described["signal"] = "signal_mv" if in_mv else "values"
    return _CARD.format(**described, cohorts=cohorts, first=next(iter(parts)), a_step=a_step)
