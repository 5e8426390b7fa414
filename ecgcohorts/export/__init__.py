"""A store in formats that other tools read: WFDB records, Hugging Face and WebDataset shards, the index as a table.

Strips leave exactly as they are stored: the recipe's rate and leads, one step = `lsb_uv`, -32768 = no sample there.
Beside the signals go only age, sex, cohort, labels, quality and pseudonyms; dates, devices and sites stay behind.
"""

from ecgcohorts.export.huggingface import export_huggingface
from ecgcohorts.export.index_table import export_index
from ecgcohorts.export.samples import WHOLE
from ecgcohorts.export.webdataset import export_webdataset
from ecgcohorts.export.wfdb import export_wfdb

__all__ = ["WHOLE", "export_huggingface", "export_index", "export_webdataset", "export_wfdb"]
