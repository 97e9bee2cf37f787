import gc
from pathlib import Path

import numpy as np
import pytest

from coala_core.scratch import Scratch


def test_an_array_is_writable_zeros_of_its_shape_and_type(tmp_path):
    array = Scratch(tmp_path).array((3, 5), np.float32)
    assert (array.shape, array.dtype, array.flags.writeable) == ((3, 5), np.float32, True)
    assert not array.any()
    array[1] = 7.0
    assert array.sum() == 35.0


def test_nothing_is_left_behind_in_the_folder(tmp_path):
    array = Scratch(tmp_path).array((1000,), np.float64)
    array[:] = 1.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
def test_the_file_goes_with_its_array(tmp_path):
    def held():
        return sum("coala-" in line for line in Path("/proc/self/maps").read_text().splitlines())

    gc.collect()  # what other tests left open
    before = held(), len(list(Path("/proc/self/fd").iterdir()))
    arrays = [Scratch(tmp_path).array((4096,), np.float64) for _ in range(5)]
    view = arrays[0][10:20]
    del arrays
    gc.collect()
    assert view.sum() == 0.0  # a view keeps what it looks at
    del view
    gc.collect()
    assert (held(), len(list(Path("/proc/self/fd").iterdir()))) == before


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0)])
def test_an_empty_array_needs_no_file(tmp_path, shape):
    assert Scratch(tmp_path / "absent").array(shape, np.float32).shape == shape


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match=r"must find 9\.09e\+06 GiB in .*; free some, or choose a larger file system"):
        Scratch(tmp_path).array((2**20, 2**20, 2220), np.float32)
