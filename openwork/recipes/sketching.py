"""What the runs of sketched training have in common: numbers under the law, and a pruned model at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from openwork.data import Data, Split
from openwork.files import Json
from openwork.metrics import sparsity, support
from openwork.partitions import Elements, Slices
from openwork.sketches import Key, SketchedModule, export_delta, export_submodel, mc_objective, prune_curve
from openwork.sketches.export import Rule
from openwork.sketches.families import Units
from openwork.sketches.masks import RULES, check_rule
from openwork.sketches.traffic import rand_k_bytes, replicated_bytes, ring_bytes, server_bytes, sharded_bytes
from openwork.training import Metrics, Run, supervised
from openwork.training.evaluation import evaluate

RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
WORKERS = (2, 4, 8)
# Validation samples and draws with which training is watched: enough to see where it goes, at little cost.
WATCHED = 1000
DRAWS = 16


def sketched_run(
    sketched: SketchedModule,
    optimizer: Optimizer,
    samples: Data,
    *,
    keep: float,
    rule: Rule,
    epochs: int,
    batch_size: int,
    seed: int,
    base: nn.Module | None = None,
) -> Run:
    """A run that trains under sketches and hands over a pruned model.

    Reports also have the loss under the law, and the final numbers a prune curve on validation samples and the bytes
    that workers would send.

    Args:
        sketched: Trained in place.
        optimizer: Over its module's parameters.
        samples: Data with validation samples.
        keep: Ratio of the model that is handed over.
        rule: Which entries or units it keeps; the best of several is chosen on validation samples.
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        seed: Of the order of the samples and of the masks.
        base: What was fine-tuned, to say how large the sparse delta is.

    Raises:
        ValueError: If ``keep`` is out of range, or another argument.
    """
    if not 0 < keep <= 1:
        raise ValueError(
            f"keep must be above 0 and at most 1, the fraction that the model at the end keeps, got {keep}"
        )
    check_rule("sketched_run", rule, (*RULES, "best_of"))
    sketched.follow(optimizer)
    run = supervised(
        sketched,
        cross_entropy,
        optimizer,
        data=samples,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        schedule="cosine",
    )
    ending = _Ending(run, sketched, samples, keep, rule, Key(seed, backend="hash"), base)
    return replace(run, advance=ending.advance, finish=ending.finish, evaluate=ending.evaluate)


class _Ending:
    """What is reported and handed over, around a supervised run.

    Args:
        run: Of the sketched module.
        sketched: In training.
        samples: Data with validation samples.
        keep: Ratio of the model that is handed over.
        rule: Which entries or units it keeps.
        key: Of the masks.
        base: What was fine-tuned, if anything.
    """

    def __init__(
        self,
        run: Run,
        sketched: SketchedModule,
        samples: Data,
        keep: float,
        rule: Rule,
        key: Key,
        base: nn.Module | None,
    ) -> None:
        self.run, self.sketched, self.samples, self.base = run, sketched, samples, base
        self.keep, self.key = keep, key
        self.rule: Rule = rule
        self.finished: nn.Module | None = None

    def advance(self, units: int) -> Metrics:
        """See ``Run``."""
        metrics = self.run.advance(units)
        return metrics | self._loss() if metrics else metrics

    def finish(self) -> nn.Module:
        """See ``Run``."""
        self.run.finish()
        self.finished = export_submodel(self.sketched, self.keep, self.rule, DRAWS, self._score, key=self.key)
        return self.finished

    def evaluate(self, module: nn.Module) -> Metrics:
        """See ``Run``."""
        metrics = self.run.evaluate(module)
        if module is not self.finished:
            return metrics
        groups = Slices(1) if isinstance(self.sketched.families[0], Units) else Elements()
        weights = {name: x for name, x in module.named_parameters() if x.ndim > 1}
        structure = sparsity(module, {name: support(x, groups) for name, x in weights.items()}).record()
        return metrics | cast("Metrics", structure) | self._loss() | {"sketch": self._record()}

    def _watched(self) -> Split:
        valid = self.samples.valid
        return Split(valid.inputs[:WATCHED], valid.targets[:WATCHED]).to(next(self.sketched.parameters()).device)

    def _loss(self) -> Metrics:
        """The loss under the law, on validation samples."""
        watched = self._watched()
        found = mc_objective(self.sketched, cross_entropy, (watched.inputs, watched.targets), n=DRAWS, key=self.key)
        return {"sketched_loss": found.mean, "sketched_loss_stderr": found.stderr, "sketched_draws": found.n}

    def _scores(self, module: nn.Module) -> dict[str, float]:
        watched = self._watched()
        found = evaluate(module, cross_entropy, watched, batch_size=WATCHED, classes=self.samples.classes)
        return cast("dict[str, float]", found)

    def _score(self, module: nn.Module) -> float:
        return self._scores(module)["accuracy"]

    def _record(self) -> dict[str, Json]:
        points = prune_curve(self.sketched, self._scores, RATIOS, n=DRAWS, key=self.key)
        found: dict[str, Json] = {
            "keep": self.keep,
            "rule": self.rule,
            "law": repr(self.sketched.families[0].law),
            "masks": DRAWS,
            "prune_curve": [point.record() for point in points],
            "traffic": traffic(sum(x.numel() for x in self.sketched.module.parameters()), self.keep),
        }
        if self.base is not None:
            found["delta"] = self._delta(self.base)
        return found

    def _delta(self, base: nn.Module) -> dict[str, Json]:
        with TemporaryDirectory() as folder:
            size = export_delta(
                self.sketched,
                base,
                Path(folder) / "delta.safetensors",
                self.keep,
                base_id="base",
                rule=self.rule,
                n=DRAWS,
                evaluate=self._score,
                # Only the largest entries cannot be drawn again.
                format="bitmask" if self.rule == "magnitude" else "seed",
                key=self.key,
            )
        return dict(vars(size))


def traffic(size: int, keep: float, workers: Sequence[int] = WORKERS) -> dict[str, Json]:
    """Bytes that each worker would send for one step, by formula, in 4 bytes a number.

    Args:
        size: Numbers in the model.
        keep: Fraction that an independent random mask keeps.
        workers: How many there are.

    Returns:
        By the name of the scheme, a number for each number of workers.
    """
    schemes: Mapping[str, Callable[[int, int], float]] = {
        "ring": ring_bytes,
        "replicated": replicated_bytes,
        "sharded": sharded_bytes,
        "server": server_bytes,
        "rand_k": lambda d, n: rand_k_bytes(max(1, round(keep * d)), n),
    }
    found = {name: [scheme(size, n) for n in workers] for name, scheme in schemes.items()}
    return {"size": size, "keep": keep, "workers": list(workers), "bytes": found}


__all__ = ["sketched_run", "traffic"]
