"""The masker: a run's output in, the same with `***` in place of the account's secrets out.

A stream comes in pieces of any size, and how it is cut changes nothing in what goes out.
Occurrences that overlap are one: `***` stands for all of it, and no end of a secret shows beside
it.

What could be the beginning of a secret is held back until the next piece decides, or the stream
ends: however long that takes. Letting it go after a while would show, byte by byte, the secret of a
program that writes byte by byte. So the last few characters before a pause may arrive after it, if
a secret begins with them.

One regular expression with hold-back would be shorter, but its worst case is quadratic: `re` tries
the longest secret again at every position. Measured with the secret a^8000 b in a text of a's: 15 s
for each MB, where this automaton takes 0.4 s. A program could stop its own supervisor by that.

Rich output travels in the same streams as frames (`remote.frames`). A sound frame passes
as it is, but for its readable text: in base64 a secret's characters are an accident, and a change
would destroy the frame. Where it was made the secrets were masked before. What only looks like a
frame is text.
"""

from __future__ import annotations

import re
from binascii import crc32
from collections import deque
from collections.abc import Iterable, Mapping

from ...protocol.limits import MIN_MASKED_CHARACTERS
from ...remote.frames import END, FIELDS, MAX_FRAME_BYTES, OPENING
from ...remote.masking import forms_of

MASK = b"***"
_MAX_HEAD_BYTES = 8

#: Tells a program which of its variables are secrets, for what it encodes before we can see it.
SECRET_NAMES = "LYCEUM_SECRET_NAMES"


def program_variables(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to give a program: the secrets, and the list of their names."""
    return {**secrets, SECRET_NAMES: ",".join(secrets)} if secrets else {}


class SecretTexts:
    """The texts to mask: the values in all their forms.

    It is false if there is nothing to look for.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._texts = {
            form.encode()
            for value in values
            if len(value) >= MIN_MASKED_CHARACTERS
            for form in forms_of(value)
        }
        #: Every occurrence begins with a head. All heads have the same length.
        self.head_bytes = min([_MAX_HEAD_BYTES, *map(len, self._texts)])
        heads = sorted({text[: self.head_bytes] for text in self._texts})
        self.find_head = re.compile(b"|".join(map(re.escape, heads))).search
        self._begun = {head[:size] for head in heads for size in range(1, self.head_bytes)}
        self._automaton: _Automaton | None = None

    def __bool__(self) -> bool:
        return bool(self._texts)

    def may_be_in(self, data: bytes) -> bool:
        """Return whether an occurrence may begin in the data. Nearly always it does not."""
        sizes = range(1, self.head_bytes)
        return (
            any(data[-size:] in self._begun for size in sizes) or self.find_head(data) is not None
        )

    def automaton(self) -> _Automaton:
        # Made when a secret may have been printed: most runs print none.
        if self._automaton is None:
            self._automaton = _Automaton(self._texts)
        return self._automaton


class Masker:
    """The masker of one stream of one run, frames and text."""

    def __init__(self, secrets: SecretTexts) -> None:
        self._secrets = secrets
        self._text = TextMasker(secrets)
        self._held = b""  # may be the beginning of a frame

    def feed(self, data: bytes) -> bytes:
        """Return what can go out now that this has come in."""
        return self._masked(data, is_end=False)

    def close(self) -> bytes:
        """Return what is left at the end of the stream."""
        return self._masked(b"", is_end=True) + self._text.close()

    def _masked(self, data: bytes, *, is_end: bool) -> bytes:
        data, self._held = self._held + data, b""
        out = []
        done = at = 0
        while (at := data.find(_OPENING, at)) >= 0:
            frame = _frame_at(data, at)
            if frame is None and not is_end:
                break
            if not frame:
                at += 1
                continue
            head_end, end = frame
            readable = TextMasker(self._secrets)
            out += [self._text.feed(data[done:at]), self._text.close(), data[at:head_end]]
            out += [readable.feed(data[head_end : end - len(_END)]), readable.close(), _END]
            done = at = end
        if at < 0:
            at = len(data) if is_end else len(data) - _length_of_begun_opening(data, done)
        self._held = data[at:]
        out.append(self._text.feed(data[done:at]))
        return b"".join(out)


#: A span before everything.
_NOWHERE = (-1 << 62, -1 << 62)


class TextMasker:
    """The masker of text without frames.

    Positions count from the first byte that has not gone out: `_held[0]`, once there is one. An
    occurrence may begin before it, where what went out last was a mask.
    """

    def __init__(self, secrets: SecretTexts) -> None:
        self._secrets = secrets
        self._held = b""
        self._node = 0  # of the automaton: how far the held bytes lead into secrets
        self._spans: list[tuple[int, int]] = []  # occurrences in the held bytes, none overlapping

    def feed(self, data: bytes) -> bytes:
        """Return what can go out now that this has come in."""
        if not self._node and not self._secrets.may_be_in(data):
            return data
        walk_from = len(self._held)
        data = self._held + data
        self._walk(data, walk_from)
        depth = self._secrets.automaton().depths[self._node]
        return self._take(data, len(data) - depth)

    def close(self) -> bytes:
        """Return what is left at the end of the text; another may begin then."""
        self._node = 0
        return self._take(self._held, len(self._held))

    def _walk(self, data: bytes, at: int) -> None:
        """Find the occurrences that end after `at`."""
        automaton = self._secrets.automaton()
        nexts, fallbacks, lengths = automaton.nexts, automaton.fallbacks, automaton.lengths
        node, spans = self._node, self._spans
        # The last span, apart from the others: text that repeats a secret makes it longer and
        # longer.
        start, end = spans.pop() if spans else _NOWHERE
        while at < len(data):
            if not node:
                head = self._secrets.find_head(data, at)
                nearest_cut = len(data) - self._secrets.head_bytes + 1
                at = head.start() if head else max(at, nearest_cut)
            byte = data[at]
            while node and byte not in nexts[node]:
                node = fallbacks[node]
            node = nexts[node].get(byte, 0)
            at += 1
            if length := lengths[node]:
                if at - length >= end:
                    spans.append((start, end))
                    start = at - length
                elif at - length < start:
                    start = at - length
                    while spans and start < spans[-1][1]:
                        start = min(start, spans.pop()[0])
                end = at
        self._node = node
        self._spans = [span for span in [*spans, (start, end)] if span != _NOWHERE]

    def _take(self, data: bytes, certain: int) -> bytes:
        """Let go of what no later bytes can change.

        Args:
            certain: no occurrence that is still to be found begins before this. It may be
                negative.
        """
        out = []
        done = 0
        kept = []
        for start, end in self._spans:
            if start > certain:
                kept.append((start, end))
                continue
            if start >= 0:  # else it goes on with the mask that went out last
                out += [data[done:start], MASK]
            done = end
        # After `certain`, but masked in any case: it need not wait.
        cut = max(done, certain, 0)
        out.append(data[done:cut])
        self._held = data[cut:]
        self._spans = [(start - cut, end - cut) for start, end in kept]
        return b"".join(out)


def masked(text: str, values: Iterable[str]) -> str:
    """Return a whole text without the values in any of their forms."""
    secrets = SecretTexts(values)
    if not secrets:
        return text
    masker = TextMasker(secrets)
    return (masker.feed(text.encode()) + masker.close()).decode(errors="replace")


class _Automaton:
    """An automaton after Aho and Corasick: it reads text byte by byte, in one pass whatever the
    secrets.

    A node stands for the beginning of a secret; node 0 for the empty one. Source: "Efficient string
    matching: an aid to bibliographic search", 1975.

    Attributes:
        nexts: node -> byte -> the node that is one byte longer.
        fallbacks: node -> the node of its longest proper suffix that is a node.
        depths: node -> its length.
        lengths: node -> the length of the longest secret that it ends with; 0: with none.
    """

    def __init__(self, texts: Iterable[bytes]) -> None:
        self.nexts: list[dict[int, int]] = [{}]
        self.depths = [0]
        self.lengths = [0]
        for text in texts:
            node = 0
            for depth, byte in enumerate(text, 1):
                node = self.nexts[node].setdefault(byte, len(self.nexts))
                if node == len(self.nexts):
                    self.nexts.append({})
                    self.depths.append(depth)
                    self.lengths.append(0)
            self.lengths[node] = len(text)
        self.fallbacks = [0] * len(self.nexts)
        waiting = deque(self.nexts[0].values())  # shorter ones first
        while waiting:
            node = waiting.popleft()
            for byte, longer in self.nexts[node].items():
                waiting.append(longer)
                suffix = self.fallbacks[node]
                while suffix and byte not in self.nexts[suffix]:
                    suffix = self.fallbacks[suffix]
                self.fallbacks[longer] = suffix = self.nexts[suffix].get(byte, 0)
                self.lengths[longer] = self.lengths[longer] or self.lengths[suffix]


# --- frames ----------------------------------------------------------------------------------

_OPENING = OPENING.encode()
_END = END.encode()
_HEAD = re.compile(f"{OPENING}[0-9A-Za-z_-]+:{FIELDS}".encode())
#: What may become a head: each field loosely, and as many as there are.
_BEGUN_HEAD = re.compile(_OPENING + rb"[^:~\n]*(?::[^:~\n]*){0,5}")


def _frame_at(data: bytes, at: int) -> tuple[int, int] | tuple[()] | None:
    """Return where the readable text of the frame at `at` begins and where the frame ends.

    Returns:
        Empty: there is no frame. None: there may be one, if the right bytes follow.
    """
    limit = at + MAX_FRAME_BYTES
    head = _HEAD.match(data, at, limit)
    if head is None:
        may_become = len(data) < limit and _BEGUN_HEAD.fullmatch(data, at)
        return None if may_become else ()
    if crc32(b"%b:%b" % (head["place"], head["payload"])) != int(head["crc"], 16):
        return ()
    end = data.find(_END, head.end(), limit)
    if end < 0:
        return None if len(data) < limit else ()
    return head.end(), end + len(_END)


def _length_of_begun_opening(data: bytes, since: int) -> int:
    """Return how many bytes at the end of `data` could be the beginning of an opening."""
    at = data.rfind(b"~", max(since, len(data) - len(_OPENING) + 1))
    return len(data) - at if at >= 0 and _OPENING.startswith(data[at:]) else 0
