"""The paths of Lyceum's API that this package speaks, as constants both sides use."""

PRODUCTION_ORIGIN = "https://api.lyceum.technology"

PREFIX = "/api/v2/external"
START_PYTHON = f"{PREFIX}/execution/streaming/start"
STREAM = "/api/v1/stream"  # + /{run_id}: the stream by id alone
MACHINE_TYPES = f"{PREFIX}/machine-types"
AVAILABLE_HARDWARE = f"{PREFIX}/user/quotas/available-hardware"
ORG = f"{PREFIX}/user/org"
HEALTH = f"{PREFIX}/health/ping"
WORKLOADS = f"{PREFIX}/workloads/list"
HISTORY = f"{PREFIX}/billing/history"
VALIDATE_KEY = f"{PREFIX}/auth/api-keys/validate"
REFRESH = f"{PREFIX}/auth/refresh"

# The embedded server alone has this one: it asks an idle server to end, so that a newer version
# of the package can take its place.
SHUTDOWN = f"{PREFIX}/embedded/shutdown"


def record(run_id: str) -> str:
    return f"{PREFIX}/execution/{run_id}"


def timing(run_id: str) -> str:
    return f"{PREFIX}/execution/{run_id}/timing"


def legacy_status(run_id: str) -> str:
    return f"{PREFIX}/execution/streaming/{run_id}/status"


def abort(run_id: str) -> str:
    return f"{PREFIX}/workloads/abort/{run_id}"


def stop(run_id: str) -> str:
    return f"{PREFIX}/workloads/stop/{run_id}"


def logs(run_id: str) -> str:
    return f"{PREFIX}/logs/execution/{run_id}"


def stream(run_id: str) -> str:
    return f"{STREAM}/{run_id}"
