"""Language models."""

from pathlib import Path

from torch import Tensor
from torch.nn.functional import cross_entropy

from openwork import data, models
from openwork.optim import RAMDA, regularize
from openwork.penalties import GroupLasso
from openwork.training import Precision, Run, supervised


def ramda_shakespeare_gpt(
    lam: float = 3e-5,
    lr: float = 3e-3,
    averaging: float = 0.1,
    epochs: int = 10,
    batch_size: int = 32,
    context: int = 128,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    clip: float = 1.0,
    precision: Precision = "no",
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """A character-level GPT on Shakespeare with RAMDA: input features of every projection dropped.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate; a tenth in the second half.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the text.
        batch_size: Windows per step.
        context: Characters per window.
        width: Features of a token.
        depth: Blocks.
        heads: Attention heads, a divisor of width.
        clip: Largest norm of the gradient.
        precision: Of the forward pass: no, bf16 or fp16.
        seed: Of weights and order of the windows.
        data_dir: Folder with tiny-shakespeare/; default OPENWORK_DATA.
    """
    corpus = data.shakespeare(data_dir)
    network = models.gpt(len(corpus.vocabulary), context, width, depth, heads, seed=seed)
    return supervised(
        network,
        next_token_loss,
        RAMDA(regularize(network, GroupLasso(lam)), lr=lr, averaging=averaging),
        data=corpus.windows(context),
        epochs=epochs,
        milestones=[epochs // 2] if epochs > 1 else [],
        batch_size=batch_size,
        clip=clip,
        precision=precision,
        seed=seed,
    )


def next_token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every token, averaged over all windows.

    Args:
        outputs: Logits (N, T, V).
        targets: Tokens (N, T).

    Returns:
        A 0-dim tensor.
    """
    return cross_entropy(outputs.flatten(0, 1), targets.flatten())
