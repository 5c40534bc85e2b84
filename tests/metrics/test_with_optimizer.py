"""The numbers of a model in training, from the structure its optimizer knows."""

import torch
from torch import nn

from openwork.metrics import Sparsity, sparsity
from openwork.optim import RAMDA, regularize
from openwork.penalties import GroupLasso, NuclearNorm, Penalty


class Mixed(nn.Module):
    """One layer of every kind that groups differ for, and those that stay free."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.depthwise = nn.Conv1d(4, 4, 3, groups=4, padding=1)
        self.grouped = nn.Conv1d(4, 6, 3, groups=2, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.transposed = nn.ConvTranspose1d(6, 2, 2)
        self.head = nn.Linear(16, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.depthwise(self.embedding(words).transpose(1, 2)))
        return self.head(self.transposed(self.norm(x)).flatten(1))


def one_step(penalty: Penalty) -> tuple[Sparsity, Sparsity]:
    """Sparsity of the model as it is and inside ``structured()``, after a step that averages by a tenth."""
    torch.manual_seed(0)
    model = Mixed()
    optimizer = RAMDA(regularize(model, penalty), averaging=0.1)
    nn.functional.cross_entropy(model(torch.randint(5, (8, 7))), torch.randint(3, (8,))).backward()
    optimizer.step()
    found = optimizer.structures()
    structures = {name: found[weight] for name, weight in model.named_parameters() if weight in found}
    before = sparsity(model, structures)
    with optimizer.structured():
        return before, sparsity(model, structures)


def test_default_groups_of_every_layer():
    before, inside = one_step(GroupLasso(1e6))
    assert {name: (layer.alive, layer.total, layer.size) for name, layer in inside.layers.items()} == {
        "depthwise.weight": (0, 4, 3),
        "grouped.weight": (0, 4, 9),
        "transposed.weight": (0, 6, 4),
        "head.weight": (0, 16, 3),
    }
    assert (inside.group, inside.weighted_group) == (1.0, 1.0)
    # The zeros are in the structured weights, and the averaged ones know nothing of them yet.
    assert before.group == 1.0
    assert before.unstructured is not None and inside.unstructured is not None
    assert before.unstructured < 0.1
    zeros = 12 + 36 + 24 + 48
    assert inside.params.total - inside.params.nonzero == zeros + (before.params.total - before.params.nonzero)


def test_nothing_is_zero_without_strength():
    _, inside = one_step(GroupLasso(0.0))
    assert (inside.group, inside.weighted_group) == (0.0, 0.0)


def test_rank():
    _, inside = one_step(NuclearNorm(1e6))
    assert inside.low_rank == 1.0 and inside.group is None
    assert inside.layers["head.weight"].total == 3
