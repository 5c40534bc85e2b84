"""The section of the page on alternating minimization."""

from collections.abc import Callable, Sequence
from html import escape

from openwork.report.alternating import AlternatingContents
from openwork.report.charts import Chart, Line
from openwork.report.contents import RunContents
from openwork.report.curves import COLORS, DASHES, changes
from openwork.report.text import shown, significant

MOST_NAMED = 40  # inputs that are named one by one


def alternating_section(run: RunContents, charts: Callable[[str, Sequence[Chart], str], str]) -> str:
    """The section on alternating minimization; empty if the run was trained otherwise.

    Args:
        run: What the report says.
        charts: Draws charts under a title, with a sentence.
    """
    said = run.alternating
    if said is None:
        return ""
    drawn = charts("Alternating minimization", _charts(run, said), " ".join(_sentences(run, said)))
    return "\n".join(part for part in (drawn, _inputs(said)) if part)


def _sentences(run: RunContents, said: AlternatingContents) -> list[str]:
    found: list[str] = []
    if said.sweeps is not None:
        each = "" if said.sweep_seconds is None else f", {_seconds(said.sweep_seconds)} each with its evaluation"
        found.append(f"{said.sweeps:,.0f} sweeps over all blocks{each}.")
    if said.restarts is not None:
        found.append(_repeated(said.restarts))
    if said.chosen_sweep is not None:
        refitted = ", and its last layer was refitted if that lowered this loss further" if said.refitted else ""
        found.append(
            f"The network handed over is that of sweep {said.chosen_sweep:,.0f}, the one with the smallest validation "
            f"loss{refitted}."
        )
    forward, surrogate = (run.curves.get(key, [None])[-1] for key in ("train_loss", "surrogate_loss"))
    if forward is not None and surrogate is not None:
        found.append(
            f"At the end the training loss is {shown(forward, 'loss')} for the network and {shown(surrogate, 'loss')} "
            "for its surrogate, which is what the objective contains."
        )
    return found


def _repeated(restarts: float) -> str:
    if restarts == 0:
        return "No sweep had to be repeated without inertia."
    if restarts == 1:
        return "1 update raised the objective and was repeated without inertia."
    return f"{restarts:,.0f} updates raised the objective and were repeated without inertia."


def _seconds(value: float) -> str:
    return f"{significant(1000 * value)}\u202fms" if value < 1 else f"{significant(value)}\u202fs"


def _charts(run: RunContents, said: AlternatingContents) -> list[Chart]:
    times = [0.0 if time is None else time for time in run.curves[run.clock]]
    rho, restarts = _values(run, "rho"), _values(run, "restarts")
    marks = changes(times, rho)
    marked = ", marked where rho changed" if marks else ""
    found = [
        Chart(
            "Objective",
            times,
            [Line("F, a sum over samples", _values(run, "objective"), "a")],
            "loss",
            run.clock,
            f"Not comparable across balancing, or a change of rho or of a slope{marked}.",
            "auto",
            marks,
        ),
        Chart(
            "Training loss",
            times,
            [
                Line("network", _values(run, "train_loss"), "a"),
                Line("surrogate", _values(run, "surrogate_loss"), "b", "dashed"),
            ],
            "loss",
            run.clock,
            "Where they part, a lower objective says little about the network.",
            "auto",
        ),
        Chart(
            "Residuals of the links",
            times,
            _lines("layer", said.layers["link_residual"]),
            "residual",
            run.clock,
            "Root mean square of W a + b - z; 0 where the codes are those of the network.",
            log=True,
        ),
        Chart(
            "Norms of the weights",
            times,
            _lines("layer", said.layers["weight_norm"]),
            "loss",
            run.clock,
            "A layer that shrinks while the next one grows lowers the objective without learning.",
            "auto",
        ),
    ]
    gaps = said.layers["coupling_gap"]
    if any(value for values in gaps for value in values):
        caption = "Largest |a - h(z)| of a hidden layer."
        found.append(
            Chart("Gap of the couplings", times, _lines("layer", gaps), "residual", run.clock, caption, log=True)
        )
    if len({value for value in rho if value is not None}) > 1:
        found.append(Chart("Weight of the links", times, [Line("rho", rho, "c")], "residual", run.clock, log=True))
    if restarts[-1]:
        found.append(Chart("Repeated updates so far", times, [Line("restarts", restarts, "d")], "count", run.clock))
    return [*found, _speed(run, times)]


def _speed(run: RunContents, times: Sequence[float]) -> Chart:
    """Milliseconds of a sweep, from the times of two reports."""
    seconds = _values(run, "seconds")
    each: list[float | None] = []
    for n, (time, now) in enumerate(zip(times, seconds, strict=True)):
        before, earlier = (seconds[n - 1], times[n - 1]) if n else (0.0, 0.0)
        each.append(
            None if now is None or before is None or time <= earlier else 1000 * (now - before) / (time - earlier)
        )
    return Chart("Time of a sweep", times, [Line("with its evaluation", each, "e")], "ms", run.clock)


def _lines(name: str, layers: Sequence[Sequence[float | None]]) -> list[Line]:
    return [
        Line(f"{name} {n + 1}", values, COLORS[n % len(COLORS)], DASHES[n // len(COLORS) % len(DASHES)])
        for n, values in enumerate(layers)
    ]


def _values(run: RunContents, key: str) -> Sequence[float | None]:
    return run.curves.get(key, [None] * len(run.curves[run.clock]))


def _inputs(said: AlternatingContents) -> str:
    told: list[str] = []
    if said.zero_inputs:
        numbers = [f"{n:g}" for n in said.zero_inputs[:MOST_NAMED]]
        more = f" and {len(said.zero_inputs) - MOST_NAMED:,} more" if len(said.zero_inputs) > MOST_NAMED else ""
        told.append(
            f"All weights of {len(said.zero_inputs):,} inputs are exactly zero, so the network does not read them: "
            f"numbers {', '.join(numbers)}{more}. They stay in its shape, which is that of the samples."
        )
    if len(said.informative) == len(said.noise) == 2:
        (kept, informative), (read, noise) = said.informative, said.noise
        told.append(
            f"Of {informative:,.0f} inputs that matter it reads {kept:,.0f}, of {noise:,.0f} that do not {read:,.0f}."
        )
    return f'<h3>Inputs</h3>\n<p class="say">{escape(" ".join(told))}</p>' if told else ""


__all__ = ["alternating_section"]
