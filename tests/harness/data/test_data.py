import pytest

from harness.data.loading import ShuffledBatches


def test_every_sample_once_an_epoch_in_an_order_of_seed_and_epoch():
    batches = ShuffledBatches(size=10, batch_size=4, seed=3)
    assert len(batches) == 3
    first = list(batches.batches(0))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(index for batch in first for index in batch) == list(range(10))
    assert first == list(ShuffledBatches(10, 4, seed=3).batches(0))
    assert first != list(batches.batches(1))
    assert first != list(ShuffledBatches(10, 4, seed=4).batches(0))


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        ShuffledBatches(10, 0)
    with pytest.raises(ValueError, match="0 samples make no batch"):
        ShuffledBatches(0, 4)
