"""Any folder of GE MUSE XML exports, with an optional table `ids.csv` beside them.

Columns of `ids.csv`: `file` (path below SRC, with or without suffix), `patient_id`, `age` in years, `sex`,
`acquired_at` (ISO 8601), `device`, `site`. All seven must be there; a cell may be empty, and what it does not say is
taken from the file. A hospital with rules of its own writes a cohort file: see docs/cohorts.md.
"""

from ecgcohorts.cohorts.presets._export import export_of

SPEC = export_of("muse_folder", "muse_xml", "GE MUSE XML export of one hospital")
