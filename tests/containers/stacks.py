"""Stacks as the tests write them, and what is seen of them."""

from __future__ import annotations

import json
from typing import Any

import psutil

from lyceum_magic.protocol import paths
from tests.tools.served_process import ServedProcess

from .runs import ServedRun

FOREVER = "while :; do sleep 0.05; done"


def service(script: str, image: str = "localhost/python:test", **more: Any) -> dict[str, Any]:
    """A service that runs a shell script."""
    return {"image": image, "command": ["sh", "-c", script.replace("$", "$$")], **more}


def start_stack(server: ServedProcess, services: dict[str, Any], **fields: Any) -> ServedRun:
    """Start a stack with the storage mounted. `top` is the file's content beside its services."""
    file = {"services": services, **fields.pop("top", {})}
    body = {
        # JSON is YAML.
        "compose_file_code": json.dumps(file),
        "execution_type": "cpu",
        "enable_s3_mount": True,
        "timeout": 300,
        **fields,
    }
    reply = server.client.post(paths.START_COMPOSE, json=body)
    assert reply.status_code == 200, reply.text
    return ServedRun(server, reply.json())


def acceptance_stack(job: str = "echo working; exit 7") -> dict[str, Any]:
    """A database-like service, a worker that waits for it, and a job that fails."""
    ready = "test -e /tmp/ready"
    return {
        "database": service(
            f"echo starting; touch /tmp/ready; echo ready; {FOREVER}",
            restart="unless-stopped",
            healthcheck={"test": ["CMD-SHELL", ready], "interval": "0.1s", "retries": 100},
        ),
        "worker": service(
            f"echo attached; echo busy >&2; {FOREVER}",
            restart="unless-stopped",
            depends_on={"database": {"condition": "service_healthy"}},
        ),
        "job": service(job, depends_on=["worker"]),
    }


def lines(record: dict[str, Any], service: str, stream: str = "stdout") -> list[str]:
    """The output of one service."""
    prefix = f"{service} | "
    text = str(record[stream])
    return [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]


def commands() -> list[psutil.Process]:
    """The `docker compose` processes that start stacks."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "--progress" in (process.info["cmdline"] or ())
    ]
