"""Lottery tickets against a transcription: train, prune, rewind, and again from the beginning."""

from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from openwork.baselines import LotteryTicket, Training
from tests.baselines.loop import assert_zeros, batch, best, kept, network, sgd, started, step


@pytest.mark.parametrize("rewind", [0, 2])
@pytest.mark.parametrize("density", [0.64, 0.3])
def test_it_is_many_trainings_in_a_row(rewind: int, density: float) -> None:
    rounds = {0.64: 2, 0.3: 6}[density]  # 0.8^5 = 0.328
    length = 5
    steps = rewind + (rounds + 1) * length
    baseline = LotteryTicket(density, rewind=rewind)
    assert baseline.rounds == rounds
    pruning = started(baseline, steps)
    for _ in range(steps):
        step(pruning)
        assert_zeros(pruning)
    # The transcription: every training has a network and an optimizer of its own.
    model, clock = network(), 0
    optimizer, masks = sgd(model), {name: torch.ones_like(p) for name, p in model.named_parameters() if p.ndim > 1}
    early = {name: p.detach().clone() for name, p in model.named_parameters()}
    for number in range(rounds + 1):
        for _ in range(length + (rewind if number == 0 else 0)):
            loss = cross_entropy(model(batch(clock)[0]), batch(clock)[1])
            optimizer.zero_grad()
            loss.backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    p.grad *= masks.get(name, torch.ones(()))
            optimizer.step()
            clock += 1
            if number == 0 and clock == rewind:
                early = {name: p.detach().clone() for name, p in model.named_parameters()}
        if number == rounds:
            break
        alive = round(72 * (density if number == rounds - 1 else 0.8 ** (number + 1)))
        scores = {name: torch.where(masks[name] > 0, model.get_parameter(name).detach().abs(), -1.0) for name in masks}
        for name, places in best(scores, alive).items():
            masks[name].zero_().view(-1)[places] = 1
        model = network()
        optimizer = sgd(model)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(early[name] * masks.get(name, torch.ones(())))
    for (name, a), b in zip(model.named_parameters(), pruning.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13, msg=name)
    assert {name: mask.flatten().nonzero().flatten().tolist() for name, mask in masks.items()} == kept(pruning)
    assert pruning.masks.alive == round(72 * density)


def test_layerwise_keeps_the_same_fraction_of_each() -> None:
    pruning = started(LotteryTicket(0.25, scope="layerwise"), 24)
    for _ in range(24):
        step(pruning)
    assert {name: len(places) for name, places in kept(pruning).items()} == {"0.weight": 12, "2.weight": 6}


@pytest.mark.parametrize(("density", "rounds"), [(1.0, 0), (0.8, 1), (0.64, 2), (0.6, 3), (0.8**9, 9), (0.05, 14)])
def test_rounds(density: float, rounds: int) -> None:
    assert LotteryTicket(density).rounds == rounds


@pytest.mark.parametrize(("steps", "rewind"), [(100, 0), (101, 7), (37, 3)])
def test_trainings_fill_the_run(steps: int, rewind: int) -> None:
    trainings = LotteryTicket(0.5, rewind=rewind).trainings(steps)
    assert len(trainings) == 5
    assert trainings[0] == Training(0, trainings[0].stop)
    assert trainings[-1].stop == steps
    for a, b in pairwise(trainings):
        assert a.stop == b.start
        assert b.skipped == rewind
    lengths = [training.skipped + training.stop - training.start for training in trainings]
    assert max(lengths) - min(lengths) <= 1
