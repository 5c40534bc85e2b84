"""Which cells a comparison is made of, given what is known so far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Self, cast

from openwork.comparison.budget import Budget, seconds_per_epoch
from openwork.comparison.method import Method
from openwork.comparison.result import Cell, Failure, Result
from openwork.comparison.search import best, candidates, with_settings
from openwork.comparison.study import Known, Study
from openwork.comparison.target import Probe, Target, next_strength, rounded
from openwork.comparison.task import Task
from openwork.comparison.trial import noted
from openwork.files import Json

# Prefixes of facts of a study, by methods: how it is used as it is, trials of its search, how it is used after that,
# and what it is.
FIT, TRIALS, CHOSEN, ABOUT = "fit:", "trials:", "chosen:", "about:"
# What a method raises that does not fit a task, when it is built or tried.
MISFIT = (ValueError, TypeError, ArithmeticError, RuntimeError)


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())


def middle(strengths: Sequence[float]) -> float:
    """The strength of a grid at which a method is tried."""
    return strengths[len(strengths) // 2]


@dataclass(frozen=True)
class Fit:
    """How a method is used in a study: settled once, so that every worker trains the same cells.

    Args:
        settings: Of the method.
        strengths: To try, increasing.
        epochs: Passes over the training samples.
        refused: Why the method cannot be used, one sentence; nothing if it can.
    """

    settings: Mapping[str, Json]
    strengths: Sequence[float]
    epochs: int
    refused: str = ""

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """From what ``asdict`` gave."""
        return cls(**cast("dict[str, object]", value))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Args:
        task: What is learned.
        methods: By name.
        strengths: How many for each method, >= 1, or which.
        seeds: How many, >= 1.
        budget: The same for every method.
        target: What every network should come to instead; None for a path of strengths.
        search: Trials for the settings of each method; 0 for those it has.
    """

    task: Task
    methods: Mapping[str, Method]
    strengths: int | tuple[float, ...]
    seeds: int
    budget: Budget
    target: Target | None = None
    search: int = 0

    def configuration(self) -> dict[str, Json]:
        """What all workers of a study must agree upon."""
        return {
            "task": self.task.name,
            "batch_size": self.task.batch_size,
            **self._size,
            "budget": str(self.budget),
            "target": str(self.target) if self.target else None,
            "strengths": None if self.target else cast("Json", self.strengths),
            "search": self.search,
        }

    @cached_property
    def _size(self) -> dict[str, Json]:
        """What changes where the task does, though its name stays."""
        parameters = sum(p.numel() for p in self.task.model(0).parameters())
        return {"parameters": parameters, "training_samples": len(self.task.data(0).train)}

    def grid(self, method: Method) -> list[float]:
        """Strengths of a method.

        Args:
            method: With its settings.
        """
        asked = self.strengths if isinstance(self.strengths, int) else len(self.strengths)
        own = [rounded(strength) for strength in method.strengths(self.task, asked)]
        return sorted(map(rounded, self.strengths)) if not isinstance(self.strengths, int) and any(own) else own

    def wanted(self, study: Study) -> list[Cell]:
        """All cells that can be named so far, also those that are there; to be called while the study is locked.

        Args:
            study: Of the comparison.
        """
        known, cells, ready = study.known(), list[Cell](), dict[str, Fit]()
        for name, method in self.methods.items():
            fit = self._settled(study, name, method)
            trials = self._trials(study, name, method, fit)
            cells += trials
            if chosen := self._chosen(study, known, name, fit, trials):
                ready[name] = chosen
        # Every method comes to a first seed before any comes to its second.
        return cells + [
            cell
            for seed in range(self.seeds)
            for name, fit in ready.items()
            for cell in self._cells(known, name, fit, seed)
        ]

    def fits(self, study: Study) -> dict[str, Fit]:
        """How each method of a study is used, as far as that is settled.

        Args:
            study: Of the comparison.
        """
        facts = study.facts()
        first = [cell.method for cell in study.known().cells.values()]
        # Those without a cell, which are refused, come last.
        names = dict.fromkeys([*first, *sorted(name.removeprefix(FIT) for name in facts if name.startswith(FIT))])
        found = {name: facts.get(CHOSEN + name) or facts.get(FIT + name) for name in names}
        return {name: Fit.from_json(fit) for name, fit in found.items() if fit}

    def described(self, study: Study) -> dict[str, dict[str, Json]]:
        """What reports say of each method of a study.

        Args:
            study: Of the comparison.
        """
        facts = study.facts().items()
        return {name.removeprefix(ABOUT): cast("dict[str, Json]", v) for name, v in facts if name.startswith(ABOUT)}

    def retry(self, study: Study) -> None:
        """Let what failed or was left out be tried again; to be called while the study is locked.

        Args:
            study: Of the comparison.
        """
        study.retry()
        for name, fit in study.facts().items():
            if name.startswith((FIT, CHOSEN)) and fit and Fit.from_json(fit).refused:
                study.note(name, None)

    def refuse(self, study: Study, name: str, reason: str) -> None:
        """Leave a method out, unless it is settled already; to be called while the study is locked.

        Args:
            study: Of the comparison.
            name: Of the method.
            reason: One sentence.
        """
        if study.facts().get(FIT + name) is None:
            self._settle(study, name, self.methods[name], Fit(_settings(self.methods[name]), [], 0, reason))

    def _settle(self, study: Study, name: str, method: Method, fit: Fit) -> Fit:
        study.note(ABOUT + name, _about(method))
        study.note(FIT + name, cast("dict[str, Json]", asdict(fit)))
        return fit

    def _settled(self, study: Study, name: str, method: Method) -> Fit:
        """How a method is used with the settings that it has."""
        there = study.facts().get(FIT + name)
        if there is not None:
            return Fit.from_json(there)
        strengths, epochs, refused = list[float](), 0, ""
        try:
            strengths, epochs = self.grid(method), self.budget.epochs or 0
            if self.budget.seconds is not None:
                with noted():
                    pace = seconds_per_epoch(self.task, method, middle(strengths))
                epochs = int(self.budget.seconds / pace)
                refused = "" if epochs else f"one epoch takes {pace:.2g} s, which is more than the budget"
        except MISFIT as error:
            refused = reason(error)
        return self._settle(study, name, method, Fit(_settings(method), strengths, epochs, refused))

    def _trials(self, study: Study, name: str, method: Method, fit: Fit) -> list[Cell]:
        """Cells of the search for a method's settings, none if there is nothing to search."""
        if fit.refused or not self.search or not method.ranges():
            return []
        there = study.facts().get(TRIALS + name)
        if there is not None:
            return [Cell.from_json(cell) for cell in cast("list[dict[str, Json]]", there)]
        cells: list[Cell] = []
        for number, other in enumerate(candidates(method, self.search)):
            cells.append(Cell(name, _settings(other), middle(self.grid(other)), 0, fit.epochs, trial=number))
        study.note(TRIALS + name, [cast("dict[str, Json]", asdict(cell)) for cell in cells])
        return cells

    def _chosen(self, study: Study, known: Known, name: str, fit: Fit, trials: Sequence[Cell]) -> Fit | None:
        """How a method is used with the settings that its search chose; None while it goes on, or if it is refused."""
        there = study.facts().get(CHOSEN + name)
        if there is not None or not trials:
            fit = fit if there is None else Fit.from_json(there)
            return None if fit.refused else fit
        if not all(known.finished(cell.name) for cell in trials):
            return None
        if done := [known.searched[cell.name] for cell in trials if cell.name in known.searched]:
            settings = best(done)
            method = with_settings(self.methods[name], settings)
            fit = replace(fit, settings=settings, strengths=self.grid(method))
            study.note(ABOUT + name, _about(method))
        else:
            reason = known.failures[trials[0].name].reason
            fit = replace(fit, refused=f"all trials of the search failed: {reason}")
        study.note(CHOSEN + name, cast("dict[str, Json]", asdict(fit)))
        return None if fit.refused else fit

    def _cells(self, known: Known, name: str, fit: Fit, seed: int) -> list[Cell]:
        """Cells of a method and a seed: the path of strengths, or the next one on the way to the target."""

        def cell(strength: float) -> Cell:
            return Cell(name, fit.settings, strength, seed, fit.epochs)

        if self.target is None or not any(fit.strengths):
            return [cell(strength) for strength in fit.strengths]
        tried = probed(known, self.target, name, seed)
        if tried is None:
            return []
        first = None
        if self.target.measure == "density":
            first = with_settings(self.methods[name], fit.settings).strength_at(self.task, self.target.value)
        first = first or middle(fit.strengths)
        strength = next_strength([probe for probe, _ in tried], first, self.methods[name].least)
        return [] if strength is None else [cell(strength)]


def probed(known: Known, target: Target, method: str, seed: int) -> list[tuple[Probe, Result | Failure]] | None:
    """What was tried on the way to a target; None while one of these is not finished, or not measured yet.

    Args:
        known: What the study holds.
        target: Where to.
        method: By name.
        seed: Of the cells.
    """

    def ours(cell: Cell) -> bool:
        return (cell.method, cell.seed, cell.trial) == (method, seed, None)

    if any(ours(cell) for cell in known.open([method])):
        return None
    found: list[tuple[Probe, Result | Failure]] = []
    for one in (*known.results.values(), *known.failures.values()):
        if ours(one.cell):
            reached = target.of(one) if isinstance(one, Result) else None
            if isinstance(one, Result) and reached is None and one.cell.name not in known.untimed:
                return None
            found.append((Probe(one.cell.strength, None if reached is None else reached / target.value), one))
    return found


def _about(method: Method) -> dict[str, Json]:
    """What reports say of a method."""
    return {"baseline": method.baseline, "about": method.about()}


def _settings(method: Method) -> dict[str, Json]:
    return cast("dict[str, Json]", asdict(method))


__all__ = ["Fit", "Plan", "probed"]
