"""The paths of Lyceum's API that this package speaks, as constants both sides use."""

PRODUCTION_ORIGIN = "https://api.lyceum.technology"

PREFIX = "/api/v2/external"
START_PYTHON = f"{PREFIX}/execution/streaming/start"
START_IMAGE = f"{PREFIX}/execution/image/start"
START_COMPOSE = f"{PREFIX}/execution/compose/start"
#: Kind of run -> the path that starts it.
STARTS = {"python": START_PYTHON, "image": START_IMAGE, "compose": START_COMPOSE}
STREAM = "/api/v1/stream"  # + /{run_id}: the stream by id alone
MACHINE_TYPES = f"{PREFIX}/machine-types"
AVAILABLE_HARDWARE = f"{PREFIX}/user/quotas/available-hardware"
ORG = f"{PREFIX}/user/org"
HEALTH = f"{PREFIX}/health/ping"
VERSION = f"{PREFIX}/health/version"
USER_STATUS = f"{PREFIX}/user/status"
WORKLOADS = f"{PREFIX}/workloads/list"
HISTORY = f"{PREFIX}/billing/history"
CREDITS = f"{PREFIX}/billing/credits"
PRICING = f"{PREFIX}/pricing"
USER_LOGS = f"{PREFIX}/logs/user"
ORGS = f"{PREFIX}/orgs"

KEYS = f"{PREFIX}/auth/api-keys/"  # with the slash
VALIDATE_KEY = f"{KEYS}validate"
LOGIN = f"{PREFIX}/auth/login"
REFRESH = f"{PREFIX}/auth/refresh"

SECRETS = f"{PREFIX}/environment-variables/"  # with the slash

STORAGE_CREDENTIALS = f"{PREFIX}/storage/credentials"
LIST_FILES = f"{PREFIX}/storage/list-files"
UPLOAD = f"{PREFIX}/storage/upload"
UPLOAD_BULK = f"{PREFIX}/storage/upload-bulk"
BLOCK_STORAGE = f"{PREFIX}/storage/block"

# The embedded server alone has these: what became of callbacks.
DELIVERIES = f"{PREFIX}/callbacks/deliveries"
TEST_CALLBACK = f"{PREFIX}/callbacks/test"
SIGNING_SECRET = f"{PREFIX}/callbacks/secret"
ROTATE_SIGNING_SECRET = f"{SIGNING_SECRET}/rotate"
DELIVERY_HEALTH = f"{PREFIX}/callbacks/health"

# The embedded server alone has these: state from cell to cell, see `sessions`.
SESSIONS = f"{PREFIX}/sessions"

OPENAPI = "/openapi.json"  # what the embedded server speaks

# The embedded server alone has this one: it asks an idle server to end, so that a newer version
# of the package can take its place.
SHUTDOWN = f"{PREFIX}/embedded/shutdown"


def delivery(delivery_id: str) -> str:
    return f"{DELIVERIES}/{delivery_id}"


def redeliver(delivery_id: str) -> str:
    return f"{DELIVERIES}/{delivery_id}/redeliver"


def run_deliveries(run_id: str) -> str:
    return f"{PREFIX}/execution/{run_id}/callbacks"


def session(key: str) -> str:
    return f"{SESSIONS}/{key}"


def snapshots(key: str) -> str:
    return f"{session(key)}/snapshots"


def snapshot(key: str, snapshot_id: str) -> str:
    return f"{snapshots(key)}/{snapshot_id}"


def branch(key: str, name: str) -> str:
    return f"{session(key)}/branches/{name}"


def kept_snapshot(key: str, snapshot_id: str) -> str:
    return f"{session(key)}/kept/{snapshot_id}"


def key(key_id: str) -> str:
    return f"{KEYS}{key_id}"


def toggle_key(key_id: str) -> str:
    return f"{KEYS}{key_id}/toggle"


def secret(secret_id: str) -> str:
    return f"{SECRETS}{secret_id}"


def org(slug: str) -> str:
    return f"{ORGS}/{slug}"


def record(run_id: str) -> str:
    return f"{PREFIX}/execution/{run_id}"


def metrics(run_id: str) -> str:
    return f"{PREFIX}/execution/{run_id}/metrics"


def download(key: str) -> str:
    return f"{PREFIX}/storage/download/{key}"


def delete_file(key: str) -> str:
    return f"{PREFIX}/storage/delete/{key}"


def delete_folder(prefix: str) -> str:
    return f"{PREFIX}/storage/delete-folder/{prefix}"


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
