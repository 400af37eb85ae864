"""One line of the benchmark's table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        figure: what the budget is about, in `unit`.
        at_most: the budget, in the same unit; None where there is none.
        at_least: the same where more is better.
        against: the numbers it is made of.
    """

    what: str
    figure: float
    unit: str
    at_most: float | None
    samples: int
    against: str = ""
    at_least: float | None = None

    @property
    def is_kept(self) -> bool | None:
        """Return True if the budget is kept; None if there is none."""
        if self.at_most is not None:
            return self.figure <= self.at_most
        if self.at_least is not None:
            return self.figure >= self.at_least
        return None

    def cells(self) -> tuple[str, ...]:
        budget = ""
        if self.at_most is not None:
            budget = f"{self.at_most:g} {self.unit}"
        elif self.at_least is not None:
            budget = f"at least {self.at_least:g} {self.unit}"
        verdict = {True: "kept", False: "MISSED", None: ""}[self.is_kept]
        return (
            self.what, f"{self.figure:.3g} {self.unit}", budget, verdict, self.against,
            str(self.samples),
        )  # fmt: skip
