"""A server that ends by itself leaves its callbacks to the next one, and word of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lyceum_magic.protocol import paths
from tests.tools.callbacks import receiving
from tests.tools.served_process import LIMIT_S, served


def test_an_idle_server_does_not_wait_for_a_callback_of_later(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    left = folder / "deliveries.json"
    with receiving() as receiver:
        receiver.answers["/hook"] = 503
        # The second attempt is made some 5 s after the first, later than the server looks ahead.
        with served(folder, "--idle-exit", "1") as server:
            run_id = server.start("", user_callback_urls=[f"{receiver.origin}/hook"])[
                "execution_id"
            ]
            server.client.close()
            assert server.process.wait(LIMIT_S) == 0
        word = json.loads(left.read_text())
        assert (word["pending"], word["failing"], word["dead"]) == (1, 1, 0)
        assert word["next_attempt_at"].startswith("20")
        assert os.stat(left).st_mode & 0o777 == 0o600

        receiver.answers.clear()
        with served(folder) as server:
            assert not left.exists()
            (delivery,) = server.client.get(paths.run_deliveries(run_id)).json()["deliveries"]
            server.client.post(paths.redeliver(delivery["delivery_id"])).raise_for_status()
            first, *_, last = receiver.at("/hook", 2)
    assert first.body == last.body
    assert first.headers["webhook-id"] == last.headers["webhook-id"] == delivery["delivery_id"]
