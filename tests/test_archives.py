"""Archives: arrays come back bit for bit, and nothing else is taken for one."""

import numpy as np
import pytest

from cegppo_jax.archives import archive, unarchive, words_as_array, words_of_array

ARRAYS = {
    "floats": np.array([np.nan, -0.0, 0.1, np.inf, 1e-45], np.float32),
    "whole": np.arange(6, dtype=np.int32).reshape(2, 3),
    "none": np.empty((0, 2), np.float64),
}


def test_arrays_come_back_bit_for_bit():
    back = unarchive(archive(ARRAYS))
    assert back.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_other_bits_of_a_nan_stay_other_bits():
    strange = np.array([0x7FC00001, 0xFFC00002], np.uint32).view(np.float32)
    back = unarchive(archive({"strange": strange}))["strange"]
    np.testing.assert_array_equal(back.view(np.uint32), strange.view(np.uint32))


def test_large_arrays_take_little_more_than_their_bytes():
    large = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    assert len(archive({"large": large})) < 1.35 * large.nbytes


@pytest.mark.parametrize("spoil", [lambda t: t[: len(t) // 2], lambda t: "", lambda t: t[4:] + "?"])
def test_a_spoilt_text_is_refused(spoil):
    with pytest.raises(ValueError, match="not an archive of arrays"):
        unarchive(spoil(archive(ARRAYS)))


def test_words_come_back():
    words = {"text": 'é "quoted"\n\ud800 😀', "none": None, "list": [1, True]}
    assert words_of_array(words_as_array(words)) == words
