"""Arrays that stay in their files answer as NumPy's do, whatever is asked of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from napari_medtransformer.errors import UnreadableFile, UnsupportedVolume
from napari_medtransformer.volumes import file_values, kept, lazy
from napari_medtransformer.volumes.file_values import FileValues
from napari_medtransformer.volumes.kept import Kept
from napari_medtransformer.volumes.lazy import Finite, LazyArray, Stacked

SHAPE = (7, 11, 13, 3)
VALUES = np.random.default_rng(0).integers(-999, 9999, SHAPE).astype(">i2")


@pytest.fixture(scope="module")
def values_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("values") / "values.raw"
    path.write_bytes(b"abc" + VALUES.tobytes())
    return path


@pytest.fixture
def turned(values_file: Path) -> LazyArray:
    """A view with permuted and flipped axes and one that is fixed; its oracle is EXPECTED."""
    array = LazyArray(Kept(FileValues(values_file, VALUES.dtype, 3, SHAPE), (2, 3, 16, 2)))
    return array.transpose(2, 0, 1, 3).flipped((True, False, True)).fixed(3, 1)


EXPECTED = VALUES.transpose(2, 0, 1, 3)[::-1, :, ::-1, 1]


@pytest.mark.parametrize(
    ("gap", "block", "held"), [(64 << 10, 2 << 20, 1 << 20), (0, 100, 4000), (10, 50, 0), (1000, 600, 1000)]
)
def test_every_index_gives_what_numpy_gives(
    turned: LazyArray, monkeypatch: pytest.MonkeyPatch, gap: int, block: int, held: int
) -> None:
    """Whether few or many bytes are read at once, and kept."""
    monkeypatch.setattr(kept, "KEPT_BYTES", held)
    monkeypatch.setattr(file_values, "_GAP_BYTES", gap)
    monkeypatch.setattr(file_values, "_BLOCK_BYTES", block)

    @settings(max_examples=50, deadline=None)
    @given(basic_indices(EXPECTED.shape, allow_newaxis=True, allow_ellipsis=True))
    def agree(index: tuple) -> None:
        got = turned[index]
        assert np.shape(got) == np.shape(EXPECTED[index])
        np.testing.assert_array_equal(got, EXPECTED[index])

    agree()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-11, 10), min_size=1, max_size=5), st.integers(0, 12))
def test_a_list_of_indices_along_one_axis_too(chosen: list[int], place: int) -> None:
    array = LazyArray(Stacked(list(VALUES[..., 0])))
    np.testing.assert_array_equal(array[:, chosen, place], VALUES[:, chosen, place, 0])
    np.testing.assert_array_equal(np.take(array, chosen, 1), VALUES[..., 0][:, chosen])


def test_numbers_about_the_whole_array_are_numpys(turned: LazyArray) -> None:
    assert (turned.min(), turned.max(), np.max(turned)) == (EXPECTED.min(), EXPECTED.max(), EXPECTED.max())
    np.testing.assert_array_equal(turned.min(axis=1), EXPECTED.min(axis=1))
    np.testing.assert_array_equal(np.asarray(turned), EXPECTED)
    np.testing.assert_array_equal(turned + 1 > 5, EXPECTED + 1 > 5)
    np.testing.assert_array_equal(list(turned), EXPECTED)
    assert np.mean(turned) == EXPECTED.mean()
    assert (turned.shape, turned.ndim, turned.size) == (EXPECTED.shape, 3, EXPECTED.size)
    assert turned.dtype == np.int16
    assert turned.dtype.isnative
    assert turned.astype(np.float32).dtype == np.float32
    assert np.isin(turned.sample(100), EXPECTED).all()


def test_an_index_beyond_the_end_is_an_index_error(turned: LazyArray) -> None:
    for index in (13, -14, (0, 7), (0, 0, 0, 0), "x", 1.5):
        with pytest.raises(IndexError):
            turned[index]


def test_it_travels_to_another_process(turned: LazyArray) -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(turned))[3:5], EXPECTED[3:5])


def test_scaling_is_numpys_and_a_file_that_shrank_is_told(values_file: Path, tmp_path: Path) -> None:
    values = FileValues(values_file, VALUES.dtype, 3, SHAPE, (0.5, -3.0, np.dtype(np.float32)))
    np.testing.assert_allclose(LazyArray(values)[2], VALUES[2] * 0.5 - 3.0)
    short = tmp_path / "short.raw"
    short.write_bytes(values_file.read_bytes()[:-1])
    cut = LazyArray(FileValues(short, VALUES.dtype, 3, SHAPE))
    np.testing.assert_array_equal(cut[0], VALUES[0])
    with pytest.raises(UnreadableFile, match="shorter than when it was opened"):
        cut[-1]
    short.unlink()
    with pytest.raises(UnreadableFile, match="cannot be read any more"):
        cut[0]


def test_nan_and_infinities_become_numbers_as_they_are_read() -> None:
    values = np.array([[1.0, np.nan], [np.inf, -np.inf]], np.float32)
    array = LazyArray(Finite(Stacked(list(values)), 1.0, 5.0))
    np.testing.assert_array_equal(np.asarray(array), [[1, 1], [5, 1]])
    assert np.isnan(values[0, 1])  # what they came from is as it was


def test_what_memory_cannot_hold_is_not_taken_into_it(turned: LazyArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "physical_memory", lambda: 1000.0)
    with pytest.raises(UnsupportedVolume, match="needs .* of memory as a whole"):
        np.asarray(turned)
    assert turned[0].shape == EXPECTED[0].shape


def test_the_next_slices_come_from_what_was_read_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "values.raw"
    values = np.arange(40 * 40 * 40, dtype=np.int16).reshape(40, 40, 40)
    path.write_bytes(values.tobytes())
    array = LazyArray(Kept(FileValues(path, values.dtype, 0, values.shape), (1, 1, 16)))
    np.testing.assert_array_equal(array[:, :, 17], values[:, :, 17])
    path.unlink()
    for column in range(16, 32):
        np.testing.assert_array_equal(array[:, :, column], values[:, :, column])
    with pytest.raises(UnreadableFile):
        array[:, :, 32]
