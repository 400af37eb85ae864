"""The same events come out of a stream, however its bytes are cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
from hypothesis import given
from hypothesis import strategies as st

from lyceum_magic.client.api import Client
from lyceum_magic.config import Account, Secret
from lyceum_magic.protocol.events import Event, Finished, Output, Progress
from lyceum_magic.protocol.states import State
from tests.tools.wire_server import frame
from tests.unit.client.following import Heard, heard

END = Finished(State.COMPLETED, 0)
EVENTS = st.lists(
    st.builds(Output, st.text(min_size=1, max_size=40), st.sampled_from(["stdout", "stderr"]))
    | st.builds(Progress, st.just(State.STARTING), st.text(max_size=20)),
    max_size=8,
)


class Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def follow_pieces(pieces: list[bytes]) -> Heard:
    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, stream=Pieces(pieces))

    async def follow() -> Heard:
        account = Account("http://lyceum.invalid", Secret("lk_key"), "a test")
        async with Client(account, transport=httpx.MockTransport(answer)) as client:
            return await heard(client)

    return asyncio.run(follow())


@given(st.data(), EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_chunking_of_a_stream_gives_the_same_events(
    data: st.DataObject, events: list[Event], line_end: str, has_ids: bool
) -> None:
    whole = b"".join(
        frame(event, str(number) if has_ids else None, line_end=line_end)
        for number, event in enumerate([*events, END])
    )
    # UTF-8 that is not escaped, as other servers send it, so that a border may split a character.
    whole = 'data: {"output": {"content": "ü\u20ac\U0001f600"}}\n\n'.encode() + whole
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=40)))
    pieces = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert follow_pieces(pieces).items == [Output("ü\u20ac\U0001f600"), *events, END]
