"""The facts of a run -> one line of text, one line of HTML; pure functions.

The strip shows the same words and colours while the run lives (`strip.py`); these two remain in
the saved notebook, where no widget works.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from ..protocol.lines import one_line
from ..protocol.money import cost_of, dollars, estimate
from ..protocol.states import State

#: Maximum characters of a server's sentence; the whole one is in the raised error.
_MAX_SENTENCE = 300


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts about a run at one moment.

    Args:
        run_id: the server's id, "" before it is known.
        machine: the `-m` name.
        detail: one phrase: the phase of a live run ("installing"), the reason of one that ended.
        note: one sentence about the whole run ("no GPU on this machine: runs on the CPU").
        price_per_hour: of the machine, in dollars; None if it is free or unknown.
        billed: the cost by the server, in dollars; None before it is billed.
        waited_s: seconds in the queue, which is free; None while it is there.
        timeout_s: the time limit in seconds, which with the price gives the maximum cost.
        elapsed_s: seconds since the start was requested.
    """

    run_id: str
    state: State
    machine: str
    name: str = ""
    detail: str = ""
    note: str = ""
    price_per_hour: float | None = None
    billed: float | None = None
    waited_s: float | None = 0.0
    timeout_s: int = 0
    is_local: bool = False
    is_detached: bool = False
    elapsed_s: float = 0.0
    return_code: int | None = None

    @property
    def short_id(self) -> str:
        """Enough of the id to type; every `%lyceum` subcommand takes a unique prefix."""
        return self.run_id[:8]

    @property
    def ceiling(self) -> str:
        """The maximum cost, in words; empty if it is 0 or unknown."""
        if not self.price_per_hour or not self.timeout_s:
            return ""
        most = cost_of(self.price_per_hour, self.timeout_s)
        return f"at most {dollars(most, is_ceiling=True)}"

    @property
    def cost(self) -> str:
        """The maximum, present or final cost, in words; empty if it is 0 or unknown."""
        if self.billed is not None:
            return f"billed {dollars(self.billed)}"
        if not self.price_per_hour:
            return ""
        if self.waited_s is None:
            return "" if self.state.is_final else self.ceiling
        amount = cost_of(self.price_per_hour, self.elapsed_s - self.waited_s)
        if self.state.is_final:
            return estimate(amount)
        return ", ".join(filter(None, [f"{dollars(amount)} so far", self.ceiling]))


@dataclass(frozen=True, slots=True)
class Look:
    """The words and the colour of a state. White text on `colour` has a contrast above 4.5 : 1."""

    symbol: str
    label: str
    colour: str


LOOKS = {
    State.PENDING: Look("○", "queued", "#6b5b00"),
    State.STARTING: Look("◔", "starting", "#6a4fb3"),
    State.RUNNING: Look("●", "running", "#1565c0"),
    State.COMPLETED: Look("✓", "completed", "#2e7d32"),
    State.FAILED: Look("✗", "failed", "#c62828"),
    State.SYSTEM_FAILURE: Look("!", "system failure", "#ad1457"),
    State.ABORTED: Look("■", "aborted", "#616161"),
    State.CANCELLED: Look("■", "cancelled", "#616161"),
}


def to_text(facts: RunFacts) -> str:
    """Return one line: `lyceum ✓ completed in 1.2 s on cpu (LOCAL) · run 3f2a9c1e`."""
    look = LOOKS[facts.state]
    elapsed = duration(facts.elapsed_s)
    if not facts.state.is_final:
        when = f", {elapsed} so far,"
    else:
        when = f" in {elapsed}" if facts.state is State.COMPLETED else f" after {elapsed}"
    where = f"{_sentence(facts.machine)} (LOCAL)" if facts.is_local else _sentence(facts.machine)
    run = f"lyceum {look.symbol} {look.label}{when} on {where}"
    return " · ".join([run, *_particulars(facts)])


def to_html(facts: RunFacts) -> str:
    """Return one row of HTML that looks like the strip, and reads as a sentence without styles.

    GitHub drops every style, and Lab those of an untrusted notebook that it does not know. So text
    separates the words, not margins, and the style names no class and no variable.
    """
    look = LOOKS[facts.state]
    badges = [_badge(f"{look.symbol} {look.label}", look.colour)]
    if facts.is_local:
        badges.append(_badge("LOCAL", "#455a64"))
    words = [_sentence(facts.machine), duration(facts.elapsed_s), *_particulars(facts)]
    return (
        '<div style="padding:3px 5px;font-size:13px;line-height:1.6">'
        f"{' '.join(badges)} {' · '.join(f'<bdi>{escape(word)}</bdi>' for word in words)}</div>"
    )


def duration(seconds: float) -> str:
    """Return a time as `1.2 s`, `48 s`, `3 min 05 s` or `2 h 03 min`, as `strip.js` does."""
    if seconds < 10:
        return f"{int(max(seconds, 0) * 10) / 10} s"
    minutes, whole = divmod(int(seconds), 60)
    if not minutes:
        return f"{whole} s"
    if minutes < 60:
        return f"{minutes} min {whole:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _particulars(facts: RunFacts) -> Iterator[str]:
    """Yield the words that differ from run to run, for both forms."""
    if facts.name:
        yield _sentence(facts.name)
    if facts.is_detached:
        # The kernel may end first: what is saved by then says where the rest is.
        is_under_way = facts.run_id and not facts.state.is_final
        yield f"detached: %lyceum attach {facts.short_id}" if is_under_way else "detached"
    # A reason may say it in its own words.
    if facts.return_code and f"code {facts.return_code}" not in facts.detail:
        yield f"exit code {facts.return_code}"
    for text in (facts.detail, facts.note, facts.cost):
        if text:
            yield _sentence(text)
    if facts.run_id:
        yield f"run {_sentence(facts.short_id)}"


def _badge(text: str, colour: str) -> str:
    style = (
        f"background-color:{colour};color:#ffffff;"
        "padding:1px 8px;border-radius:8px;font-weight:600;white-space:nowrap"
    )
    return f'<span style="{style}">{escape(text)}</span>'


def _sentence(text: str) -> str:
    return one_line(text, _MAX_SENTENCE)  # it may come from a server
