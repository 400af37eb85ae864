"""`make faults`: every figure that the callbacks promise, measured; build/faults.md keeps them."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lyceum_magic.display.tables import Table

from . import clocks, disks, kills

_T = TypeVar("_T")

#: The share of a processor that a server may use while it can do little.
MAX_LOAD = 0.2
VISIBLE_WITHIN_S = 5.0
#: A delivery is tried again after 0.2 s where the tests set the waits; a watched disk has 4 s.
MAX_ATTEMPTS = 60


@dataclass(frozen=True)
class Figure:
    """One line: what was measured, and the bound it keeps to."""

    what: str
    measured: float
    bound: str
    is_kept: bool

    def cells(self) -> tuple[str, ...]:
        return (
            self.what, f"{self.measured:.3g}" if self.measured % 1 else f"{self.measured:.0f}",
            self.bound, "kept" if self.is_kept else "MISSED",
        )  # fmt: skip


def _at_most(what: str, measured: float, bound: float) -> Figure:
    return Figure(what, measured, f"at most {bound:g}" if bound else "0", measured <= bound)


def _at_least(what: str, measured: float, bound: float) -> Figure:
    return Figure(what, measured, f"at least {bound:g}", measured >= bound)


def of_kills(result: kills.Result) -> Iterator[Figure]:
    plan = result.plan
    yield _at_least("deliveries promised", result.deliveries, plan.deliveries)
    yield _at_least("servers killed", result.kills.total(), plan.kills)
    yield _at_most("lost", result.lost, 0)
    yield _at_most("not delivered in the end, as the server says", result.left, 0)
    share = result.twice / result.deliveries if not plan.kills else 0
    if plan.kills:
        yield _at_most(
            "accepted twice", result.twice, kills.SLOTS * kills.ENDPOINTS * plan.kills
        )  # fmt: skip
    else:
        yield _at_most("share that was accepted twice", share, 0.001)
    yield _at_most("accepted twice, and under way at no kill", result.unexplained, 0)
    yield _at_most("attempts of one delivery that differ in id or body", result.unequal, 0)
    yield _at_most("arrived before the final state could be read", result.too_early, 0)
    yield _at_least("of so many that were asked for", result.asked, 0.9 * result.deliveries)
    yield _at_most("attempts without a valid signature", result.unsigned, 0)
    yield _at_most("redirects followed", result.redirects_followed, 0)


def of_disk(result: disks.Result) -> Iterator[Figure]:
    yield _at_least("deliveries", result.deliveries, 1)
    yield _at_most("lost", result.lost, 0)
    yield _at_most("error visible after, s", result.visible_after_s, VISIBLE_WITHIN_S)
    yield _at_most("load of the server meanwhile", result.load, MAX_LOAD)
    yield _at_most("attempts at one URL meanwhile", result.attempts_at_most, MAX_ATTEMPTS)
    yield _at_most("all arrived after the recovery, s", result.recovered_after_s, 30)
    yield _at_most("errors shown in the end", result.errors_left, 0)
    yield _at_most("accepted twice", result.twice, result.slots)


def of_clock(result: clocks.Result) -> Iterator[Figure]:
    yield _at_least("deliveries", result.deliveries, 1)
    yield _at_most("lost", result.lost, 0)
    yield _at_most("load of the server", result.load, MAX_LOAD)
    yield _at_most("attempts at one URL", result.attempts_at_most, 30)
    yield _at_most("all arrived after the first jump, s", result.lasted_s, 45)
    yield _at_most("accepted twice", result.twice, 0)


def missed(figures: Iterator[Figure]) -> list[Figure]:
    return [figure for figure in figures if not figure.is_kept]


def in_scratch_folder(scenario: Callable[[Path], Coroutine[Any, Any, _T]]) -> _T:
    with tempfile.TemporaryDirectory(prefix="lyceum-faults-") as name:
        return asyncio.run(scenario(Path(name)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1250, help="of 16 callback URLs each")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--output", type=Path, default=Path("build/faults.md"))
    options = parser.parse_args()
    text = [f"# Faults\n\nSeed {options.seed}.\n"]
    is_kept = True

    def add(title: str, figures: Iterator[Figure], *lines: str) -> None:
        nonlocal is_kept
        shown = list(figures)
        is_kept &= all(figure.is_kept for figure in shown)
        rows = "\n".join(f"| {' | '.join(figure.cells())} |" for figure in shown)
        head = "| what | measured | bound | |\n| --- | --- | --- | --- |"
        text.append("\n".join([f"## {title}", "", *lines, head, rows, ""]))
        print(f"{title}\n{Table(['what', 'measured', 'bound', ''], [f.cells() for f in shown])}")

    print(f"seed {options.seed}", flush=True)
    plain = kills.Plan(options.seed, options.runs // 4, 16, 0, {})
    add("No kills, receivers that accept", of_kills(asyncio.run(kills.campaign(plain))))
    full = kills.Plan(options.seed, options.runs, 16, options.kills)
    result = asyncio.run(kills.campaign(full))
    add("Kills and receivers that fail", of_kills(result), *_course(result))
    add("A full disk", of_disk(in_scratch_folder(disks.full_disk)))
    add("A disk gone read-only", of_disk(in_scratch_folder(disks.read_only_disk)))
    add("A clock that jumps by days", of_clock(in_scratch_folder(clocks.jumping_clock)))
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(text))
    print(f"{options.output} keeps these figures.")
    return 0 if is_kept else 1


def _course(result: kills.Result) -> Iterator[str]:
    yield f"Took {result.took_s:.0f} s. Killed:\n"
    yield from (f"- {cause}: {number}" for cause, number in result.kills.most_common())
    yield "\nAttempts, by what they were answered:\n"
    yield from (f"- {answer}: {number}" for answer, number in result.attempts.most_common())
    yield ""


if __name__ == "__main__":
    sys.exit(main())
