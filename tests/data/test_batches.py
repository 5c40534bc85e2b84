from time import perf_counter

import pytest
import torch

from openwork.data import Batches, Split


def numbered(count: int = 23) -> Split:
    return Split(torch.arange(float(count)).reshape(-1, 1), torch.arange(count))


def flat(batches: list[list[int]]) -> list[int]:
    return [sample for batch in batches for sample in batch]


def drawn(batches: Batches, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [targets.tolist() for _, targets in batches.epoch(epoch, start)]


def test_an_epoch_holds_every_sample_once_and_targets_go_with_inputs():
    batches = Batches(numbered(), 5)
    assert [len(batch) for batch in drawn(batches)] == [5, 5, 5, 5, 3]
    assert len(batches) == 5
    assert sorted(flat(drawn(batches))) == list(range(23))
    assert all(torch.equal(inputs.squeeze(1), targets.float()) for inputs, targets in batches.epoch(0))


def test_drop_last_leaves_out_the_rest():
    batches = Batches(numbered(), 5, drop_last=True)
    assert [len(batch) for batch in drawn(batches)] == [5, 5, 5, 5]
    assert len(batches) == 4


def test_without_shuffle_the_order_is_that_of_the_split():
    batches = Batches(numbered(), 5, shuffle=False)
    assert flat(drawn(batches)) == list(range(23))
    assert drawn(batches, epoch=0) == drawn(batches, epoch=7)


def test_the_order_is_a_function_of_seed_and_epoch():
    torch.manual_seed(1)
    first = drawn(Batches(numbered(), 5, seed=3), epoch=2)
    torch.manual_seed(2)
    assert first == drawn(Batches(numbered(), 5, seed=3), epoch=2)
    assert first != drawn(Batches(numbered(), 5, seed=3), epoch=3)
    assert first != drawn(Batches(numbered(), 5, seed=4), epoch=2)


def test_seeds_that_differ_above_32_bits_differ():
    assert drawn(Batches(numbered(), 5, seed=3)) != drawn(Batches(numbered(), 5, seed=3 + 2**32))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_an_epoch_can_begin_at_any_batch(start):
    def noisy(inputs, generator):
        return inputs + torch.rand(inputs.shape, generator=generator)

    batches = Batches(numbered(), 5, seed=3, transform=noisy)
    whole = [inputs.tolist() for inputs, _ in batches.epoch(2)]
    assert [inputs.tolist() for inputs, _ in batches.epoch(2, start)] == whole[start:]


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_processes_together_draw_the_batches_of_one(drop_last):
    alone = drawn(Batches(numbered(24), 6, seed=3, drop_last=drop_last), epoch=1)
    ranks = [drawn(Batches(numbered(24), 2, seed=3, drop_last=drop_last, rank=r, world=3), epoch=1) for r in range(3)]
    assert [sorted(flat(list(batch))) for batch in zip(*ranks, strict=True)] == [sorted(batch) for batch in alone]


def test_every_process_gets_as_many_samples_as_the_others():
    ranks = [flat(drawn(Batches(numbered(23), 4, rank=rank, world=3))) for rank in range(3)]
    assert [len(own) for own in ranks] == [7, 7, 7]
    assert len(set(flat(ranks))) == 21


def test_the_transform_of_each_process_is_its_own():
    def noise(inputs, generator):
        return torch.rand(len(inputs), generator=generator)

    def first(rank):
        return next(Batches(numbered(), 4, transform=noise, rank=rank, world=2).epoch(0))[0]

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"^Batches: batch_size must be at least 1, got 0$"),
        ({"batch_size": 2, "rank": 2, "world": 2}, r"^Batches: rank must be in 0 to world - 1 = 1, got 2$"),
        (
            {"batch_size": 24, "drop_last": True},
            r"^Batches: 23 samples make no batch of 24 in each of 1 processes; take",
        ),
        ({"batch_size": 1, "world": 24}, r"^Batches: 23 samples make no batch of 1 in each of 24 processes; take"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(numbered(), **arguments)


def test_costs_little_more_than_taking_the_rows():
    split = Split(torch.zeros(60_000, 4), torch.zeros(60_000, dtype=torch.int64))
    batches = Batches(split, 64)
    rows = torch.randperm(60_000)[: 64 * 937].split(64)

    def seconds(epoch: int) -> tuple[float, float]:
        begin = perf_counter()
        for own in rows:
            split.take(own)
        middle = perf_counter()
        for _ in batches.epoch(epoch):
            pass
        return middle - begin, perf_counter() - middle

    # The fastest of several runs is what the code costs; the rest is the machine.
    bare, ours = (min(column) for column in zip(*(seconds(epoch) for epoch in range(7)), strict=True))
    assert (ours - bare) / len(batches) < 20e-6
