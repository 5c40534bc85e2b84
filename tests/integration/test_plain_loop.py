"""The three lines an engineer adds to a loop of their own, on real data."""

import torch
from torch.nn.functional import cross_entropy

import openwork as ow


def test_a_plain_loop_learns_and_drops_inputs() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

    optimizer = ow.optim.RAMDA(ow.optim.regularize(model, ow.penalties.GroupLasso(1e-3)), lr=0.02)
    ow.optim.Stages(optimizer, milestones=[250], total=400)
    for step in range(400):
        rows = torch.arange(step * 64, step * 64 + 64) % 1400
        loss = cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.settle_()

    with torch.no_grad():
        accuracy = (model(x[1400:]).argmax(1) == y[1400:]).float().mean()
    assert accuracy > 0.85
    seen = optimizer.read_out()
    assert seen.total == 64 + 32
    # Pixels that are always blank, at least, are no inputs any more.
    blank = ~x[:1400].any(0)
    weight = next(model.parameters())
    assert not weight[:, blank].any()
    assert 0 < seen.alive < seen.total - int(blank.sum())
    assert seen.alive == sum(int(p.any(0).sum()) for p in model.parameters() if p.ndim == 2)
