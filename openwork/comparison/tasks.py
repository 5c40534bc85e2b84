"""Tasks to compare methods on, by name."""

from openwork import data, models
from openwork.comparison.task import Task


def digits() -> Task:
    """Scikit-learn's 8 x 8 digits, a network with 128 and 64 hidden units."""
    return Task(
        "digits",
        model=lambda seed: models.he_normal_(models.mlp((64, 128, 64, 10), seed=seed), seed=seed),
        data=lambda seed: data.digits(seed=seed),
        epochs=30,
        batch_size=64,
    )


def fashion_lenet300() -> Task:
    """Fashion-MNIST, LeNet-300-100."""
    return Task(
        "fashion_lenet300",
        model=lambda seed: models.he_normal_(models.lenet300(seed=seed), seed=seed),
        data=lambda seed: data.fashion_mnist(seed=seed),
        epochs=20,
        batch_size=256,
    )


__all__ = ["digits", "fashion_lenet300"]
