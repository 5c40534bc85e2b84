"""The comparison: every method, strength and seed on one task, with one budget."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from openwork.comparison.budget import Budget
from openwork.comparison.method import Method
from openwork.comparison.result import file_name
from openwork.comparison.table import Table
from openwork.comparison.target import Target
from openwork.comparison.task import Task
from openwork.files import Json, read_json
from openwork.training import find_function

if TYPE_CHECKING:
    from openwork.comparison.plan import Plan
    from openwork.comparison.study import Study

CONFIGURATION, SETTINGS = "configuration", "settings:"


def compare(
    task: Task | str,
    methods: Sequence[str | Method] | Mapping[str, Method] | None = None,
    *,
    strengths: int | Sequence[float] = 5,
    seeds: int = 3,
    epochs: int | None = None,
    seconds: float | None = None,
    target: Target | str | None = None,
    search: int = 0,
    out: str | Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    retry: bool = False,
    said: Callable[[str], object] = lambda _: None,
) -> Table:
    """Train every method at every strength with every seed, finish and shrink every network, and measure all of them.

    A comparison that was stopped goes on where it was when it is called again, and several processes or machines may
    work on one at the same time: each takes the next cell that nobody has taken.

    Args:
        task: What is learned: a task, the name of one of ``openwork.comparison.tasks``, or ``package.module:function``
            of a function that returns one.
        methods: By name, one of ``openwork.comparison.methods`` or ``package.module:function``; or methods, which are
            called after their class; or methods by names of your own. None for all that fit the task.
        strengths: How many for each method, from weak to strong; or which, the same for all methods.
        seeds: How many networks of each, >= 1.
        epochs: The budget of every network in passes over the training samples; the task's own if None.
        seconds: The budget in seconds of training instead; how many passes that is gets measured once for each method.
        target: Such as ``"density=0.1"``: the strength of each method and seed is steered until its network comes
            within 5 %, instead of following a path of strengths.
        search: Trials for the settings of each method, as many for each, chosen on validation samples; 0 takes the
            methods as they are.
        out: Folder of the comparison; default ``runs/compare-TASK``.
        storage: URL of a database that several machines share; None for a file in ``out``.
        study: Name of the comparison in a shared database; default the task's.
        retry: Train again what failed in an earlier call; it stays a failure otherwise.
        said: Told what is being done.

    Returns:
        One row per method and strength, numbers over the seeds.

    Raises:
        TypeError: If what a name stands for is no task or method.
        ValueError: If there is no such task, method, target or database, a method does not fit the task, a number is
            out of range, or the study was begun with another budget, task, path of strengths, target or settings.
        OSError: If a file or the database cannot be read or written; finished cells are kept.
        Stopped: If a signal asked to stop; everything is saved.
    """
    budget = Budget(epochs, seconds) if seconds is not None else None
    target = Target.parse(target) if isinstance(target, str) else target
    _check_numbers(strengths, seeds, search)
    task = find_task(task) if isinstance(task, str) else task
    named = find_methods(methods)
    budget = budget or Budget(task.epochs if epochs is None else epochs)
    folder = Path(out) if out is not None else Path("runs") / f"compare-{file_name(task.name)}"
    _check_folder(folder)
    # Every cell of a seed learns from the same samples.
    task = replace(task, data=lru_cache(maxsize=2)(task.data))
    if search and not task.data(0).valid:
        raise ValueError(
            f"compare: search chooses settings on validation samples, and task {task.name} has none; hold some out"
        )

    from openwork.comparison.plan import Plan

    path = strengths if isinstance(strengths, int) else tuple(float(strength) for strength in strengths)
    plan = Plan(task, named, path, seeds, budget, target, search)
    file, known = folder / "comparison.json", set[str]()
    if file.exists():
        there = cast("Mapping[str, Mapping[str, Json]]", read_json(file))
        _check_same(folder, there.get(CONFIGURATION, {}), plan.configuration())
        known = {name for name, fit in there.get("methods", {}).items() if not (retry and _refused(fit))}
    if new := named.keys() - known:
        said("trying every method")
    refused = _refusals(plan, new, explicit=methods is not None)
    name = "comparison" if storage is None else study or task.name
    return _carried_out(plan, refused, folder, storage, name, retry, said)


def find_task(name: str) -> Task:
    """The task that a name stands for.

    Args:
        name: Of one of ``openwork.comparison.tasks``, or ``package.module:function``.

    Raises:
        ValueError: If there is none.
        TypeError: If the function returns none.
    """
    found = find_function(_spelled(name), kind="task", home="openwork.comparison.tasks")()
    if not isinstance(found, Task):
        raise TypeError(f"task {name} must be an openwork.comparison.Task, got {type(found).__name__}")
    return found


def find_methods(methods: Sequence[str | Method] | Mapping[str, Method] | None) -> dict[str, Method]:
    """Methods by name.

    Args:
        methods: As for ``compare``.

    Raises:
        ValueError: If there is none of a name, or two have the same.
        TypeError: If a function returns none.
    """
    if methods is None:
        from openwork.comparison import methods as home

        methods = home.__all__
    if isinstance(methods, Mapping):
        pairs = [*methods.items()]
    else:
        pairs = [
            (_spelled(m), find_function(_spelled(m), kind="method", home="openwork.comparison.methods")())
            if isinstance(m, str)
            else (type(m).__name__.lower(), m)
            for m in methods
        ]
    found: dict[str, Method] = {}
    for name, method in pairs:
        if not isinstance(method, Method):
            raise TypeError(f"method {name} must be an openwork.comparison.Method, got {type(method).__name__}")
        if name in found:
            raise ValueError(f"compare: two methods are called {name}; pass a dictionary from names to methods")
        found[name] = method
    if not found:
        raise ValueError("compare: methods is empty; name at least one, or leave it out for all")
    return found


def _spelled(name: str) -> str:
    """Names of functions have underscores; they may be typed with hyphens."""
    return name if ":" in name else name.replace("-", "_")


def _check_numbers(strengths: int | Sequence[float], seeds: int, search: int) -> None:
    if isinstance(strengths, int):
        if strengths < 1:
            raise ValueError(f"compare: strengths must be at least 1, got {strengths}")
    elif not strengths or not all(strength > 0 for strength in strengths):
        raise ValueError(f"compare: strengths must be a number of them, or some above 0, got {list(strengths)}")
    if seeds < 1:
        raise ValueError(f"compare: seeds must be at least 1, got {seeds}")
    if search < 0:
        raise ValueError(f"compare: search must be at least 0, got {search}")


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder with out=FOLDER")
    ours = any((folder / name).exists() for name in ("comparison.json", "study.db"))
    if folder.is_dir() and not ours and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no comparison; choose another with out=FOLDER")


def _refused(fit: Json) -> bool:
    return isinstance(fit, Mapping) and bool(fit.get("refused"))


def _refusals(plan: "Plan", names: Collection[str], explicit: bool) -> dict[str, str]:
    """Why methods cannot be used on the task: each is built once before anything is trained or written.

    Raises:
        ValueError: If one cannot, and the user has named it; or if none can.
    """
    from openwork.comparison.plan import MISFIT, middle, reason
    from openwork.comparison.trial import noted

    refused: dict[str, str] = {}
    for name, method in plan.methods.items():
        if name not in names:
            continue
        try:
            with noted():
                method.run(plan.task, middle(plan.grid(method)), plan.budget.epochs or max(2, plan.task.epochs), 0)
        except MISFIT as error:
            refused[name] = reason(error)
            if explicit:
                raise ValueError(f"method {name} does not fit task {plan.task.name}: {refused[name]}") from error
            warnings.warn(f"method {name} is left out of task {plan.task.name}: {refused[name]}", stacklevel=3)
    if len(refused) == len(plan.methods):
        first = next(iter(refused.values()))
        raise ValueError(f"compare: no method fits task {plan.task.name}; the first one says: {first}")
    return refused


def _carried_out(
    plan: "Plan",
    refused: Mapping[str, str],
    folder: Path,
    storage: str | None,
    name: str,
    retry: bool,
    said: Callable[[str], object],
) -> Table:
    """The work itself, with what takes long to import.

    Raises:
        OSError: If the folder cannot be made.
    """
    from openwork.comparison.database import database_errors
    from openwork.comparison.outcome import outcome, write_outcome
    from openwork.comparison.study import Study
    from openwork.comparison.work import work

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} cannot be made ({error.strerror}); choose another folder with out=FOLDER") from error
    with database_errors():
        study = Study(folder, name, storage)
        with study.lock:
            _agree(study, plan, folder)
            if retry:
                plan.retry(study)
            for method, reason in refused.items():
                plan.refuse(study, method, reason)
            # From here on others know which methods fit.
            study.add(plan.wanted(study))

        def kept(done: bool = False) -> Table:
            table = outcome(plan, study, folder, done)
            write_outcome(plan, study, table)
            return table

        kept()
        work(plan, study, folder, kept, said)
        return kept(done=True)


def _agree(study: "Study", plan: "Plan", folder: Path) -> None:
    """Settle what the study is about, or check that it is the same."""
    given: dict[str, dict[str, Json]] = {CONFIGURATION: plan.configuration()}
    for name, method in plan.methods.items():
        given[SETTINGS + name] = cast("dict[str, Json]", asdict(method))
    facts = study.facts()
    for fact in given.keys() & facts.keys():
        of = f" of {fact.removeprefix(SETTINGS)}" if fact.startswith(SETTINGS) else ""
        _check_same(folder, cast("Mapping[str, Json]", facts[fact]), given[fact], of)
    for fact in given.keys() - facts.keys():
        study.note(fact, given[fact])


def _check_same(folder: Path, there: Mapping[str, Json], given: Mapping[str, Json], of: str = "") -> None:
    """Refuse to go on with something else.

    Raises:
        ValueError: If it is something else.
    """
    for key, new in _plain(given).items():
        if there.get(key) != new:
            raise ValueError(
                f"the comparison in {folder} was begun with {key.replace('_', ' ')}{of} {there.get(key)} and cannot go "
                f"on with {new}; ask for the same, or choose another folder with out=FOLDER (and in a shared database "
                "another name with study=NAME)"
            )


def _plain(value: Mapping[str, Json]) -> dict[str, Json]:
    """As a database gives it back, which knows no tuples."""
    return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}


__all__ = ["compare", "find_methods", "find_task"]
