"""Any folder of Philips SierraECG XML exports, with an optional table `ids.csv` beside them.

The table is that of `muse_folder`: `file`, `patient_id`, `age`, `sex`, `acquired_at`, `device`, `site`.
"""

from ecgcohorts.cohorts.presets._export import export_of

SPEC = export_of("philips_folder", "philips_xml", "Philips SierraECG XML export of one hospital")
