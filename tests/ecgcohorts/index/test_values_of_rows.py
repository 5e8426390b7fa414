"""Labels and columns of the rows of a batch."""

import numpy as np
import pytest

from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex


@pytest.fixture
def index() -> CohortIndex:
    """Forty records of fourteen patients at scattered rows; the label says the row, the sex its third bit."""
    rows = np.random.default_rng(0).permutation(90)[:40].astype(np.int64)
    columns = {name: np.zeros(40, dtype) for name, dtype in COLUMNS.items()}
    columns |= {"row": rows, "patient": np.arange(40) // 3, "sex": (rows >> 2 & 1).astype(np.int8)}
    columns |= {"label_row": rows.astype(np.float32), "digest": np.tile(rows[:, None], 2).astype(np.uint8)}
    return CohortIndex(columns, ("a",))


def test_values_come_in_the_shape_of_the_rows(index):
    rows = np.random.default_rng(1).permutation(index["row"])[:36].reshape(3, 4, 3)
    assert np.array_equal(index.values("row", rows), rows)
    assert np.array_equal(index.values("label_row", rows), rows)
    assert np.array_equal(index.values("sex", rows), rows >> 2 & 1)
    assert index.values("sex", int(rows[0, 0, 0])) == rows[0, 0, 0] >> 2 & 1
    assert index.values("digest", rows[0]).shape == (4, 3, 2)
    assert index.values("sex", []).shape == (0,)
    part = index.take(np.arange(7))
    assert np.array_equal(part.values("patient", part["row"]), np.arange(7) // 3)


def test_an_empty_place_of_a_padded_batch_is_unknown(index):
    rows = np.array([index["row"][0], -1])
    sex, label = index.values("sex", rows), index.values("label_row", rows)
    assert sex.tolist() == [index["sex"][0], -1]
    assert label[0] == index["row"][0]
    assert np.isnan(label[1])
    assert index.values("quality", rows).tolist() == [0, 0]
    assert index.values("digest", rows)[1].tolist() == [0, 0]
    assert (sex.dtype, label.dtype) == (np.int8, np.float32)


def test_a_row_of_another_store_is_refused(index):
    absent = np.setdiff1d(np.arange(200), index["row"])
    with pytest.raises(SpecError, match=f"found {len(absent)} rows that are not in this index, such as {absent[0]}"):
        index.values("sex", absent)
    with pytest.raises(SpecError, match="no index column 'label_afib'"):
        index.values("afib", [0])
