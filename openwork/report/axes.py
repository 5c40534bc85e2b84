"""Axes of pictures that fill any width: places in percent, and round numbers to mark them with."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        low: Least value that is drawn.
        high: Largest value that is drawn, above ``low``.
        log: Whether to draw logarithms; both ends are above 0 then.
        falling: Whether values fall from the left to the right, or from the bottom to the top.
    """

    low: float
    high: float
    log: bool = False
    falling: bool = False

    def at(self, value: float) -> float:
        """Place of a value in percent of the length; those beyond an end are at that end."""
        value = min(max(value, self.low), self.high)
        low, high, here = (log10(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        part = 100 * (here - low) / (high - low)
        return 100 - part if self.falling else part

    def holds(self, value: float) -> bool:
        """Whether a value is between the ends."""
        return self.low <= value <= self.high

    def ticks(self, most: int) -> list[float]:
        """Round numbers between the ends.

        Args:
            most: How many, at least 2; fewer where round numbers are far apart.
        """
        if self.log and self.high > 4 * self.low:
            for digits in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
                found = self._decades(digits)
                if len(found) <= most:
                    return found
            found = self._decades((1,))
            return found[:: ceil(len(found) / most)]
        return self._steps(most)

    def _decades(self, digits: Sequence[float]) -> list[float]:
        exponents = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        return [tick for n in exponents for digit in digits if self.holds(tick := float(f"{digit}e{n}"))]

    def _steps(self, most: int) -> list[float]:
        span = self.high - self.low
        size = 10.0 ** floor(log10(span / most))
        step = next(step for digit in (1, 2, 5, 10, 20) if span / (step := digit * size) <= most)
        first = ceil(self.low / step - 1e-9)
        return [round(n * step, 12) for n in range(first, floor(self.high / step + 1e-9) + 1)]


def wide(values: Sequence[float], margin: float) -> Axis:
    """An axis of logarithms with room at both ends.

    Args:
        values: Above 0, at least one.
        margin: Room, as a fraction of the length.
    """
    low, high = log10(min(values)), log10(max(values))
    room = margin * (high - low) if high > low else 0.15
    return Axis(10 ** (low - room), 10 ** (high + room), log=True)


__all__ = ["Axis", "wide"]
