"""Follow a run and keep its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lyceum_magic.client.api import Client
from lyceum_magic.client.stream import Item, Notice, Recovered, follow
from lyceum_magic.protocol.events import Finished, Output


@dataclass
class Heard:
    """The items that a follower passed on."""

    items: list[Item] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)

    async def take(self, item: Item, event_id: str | None) -> None:
        self.items.append(item)
        self.ids.append(event_id)

    @property
    def text(self) -> str:
        return "".join(item.text for item in self.items if isinstance(item, Output))

    @property
    def has_recovered(self) -> bool:
        return any(isinstance(item, Recovered) for item in self.items)

    @property
    def notices(self) -> list[str]:
        return [item.text for item in self.items if isinstance(item, Notice)]

    @property
    def end(self) -> Finished:
        """The one end, which is the last thing heard."""
        (end,) = [item for item in self.items if isinstance(item, Finished)]
        assert self.items[-1] is end
        return end


async def heard(
    client: Client,
    run_id: str = "run",
    streaming_url: str | None = None,
    *,
    timeout_s: float = 60,
    last_event_id: str | None = None,
    delivered: Sequence[str] = (),
) -> Heard:
    """Follow a run to its end, and return all items."""
    heard = Heard()
    await follow(
        client,
        run_id,
        streaming_url,
        heard.take,
        timeout_s=timeout_s,
        last_event_id=last_event_id,
        delivered=delivered,
    )
    return heard
