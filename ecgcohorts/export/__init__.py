"""Export a store to formats that other tools read: WFDB, Hugging Face and WebDataset shards, the index as a table.

Strips are written exactly as they are stored: rate and leads of the recipe, one step = `lsb_uv`, -32768 = no sample.
With the signals go age, sex, cohort, labels, quality and pseudonyms only; dates, devices and sites stay behind.
"""

from ecgcohorts.errors import needs_extra

with needs_extra("ingest"):
    from ecgcohorts.export.common import WHOLE
    from ecgcohorts.export.huggingface import export_huggingface
    from ecgcohorts.export.index_table import export_index
    from ecgcohorts.export.webdataset import export_webdataset
    from ecgcohorts.export.wfdb import export_wfdb

__all__ = ["WHOLE", "export_huggingface", "export_index", "export_webdataset", "export_wfdb"]
