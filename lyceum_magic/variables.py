"""Environment variables that are passed on: to the embedded server, to uv, to a run."""

from __future__ import annotations

import os
from collections.abc import Mapping

from . import trail

#: Programs need these to work. Runs get them and no others: no keys, no tokens, no proxies (whose
#: URLs carry passwords). In addition, they get the secrets of the account.
_OF_RUNS = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
        "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
        "MPLCONFIGDIR", "HF_HOME", "TORCH_HOME", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
        "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    }
)  # fmt: skip
_OF_RUNS_PREFIXES = ("LC_", "CUDA_", "NVIDIA_")

#: The way to package indexes, and to uv's settings. Not all of uv's variables: some would choose
#: another environment, or other packages, than the run asks for.
_OF_UV = frozenset({"NETRC", "SSL_CLIENT_CERT"})
_OF_UV_PREFIXES = (
    "XDG_", "UV_CACHE_DIR", "UV_CONFIG_FILE", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS", "UV_HTTP_", "UV_INDEX", "UV_INSECURE_HOST", "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS", "UV_NO_CONFIG", "UV_NO_INDEX", "UV_OFFLINE", "UV_SYSTEM_CERTS",
)  # fmt: skip
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})

#: The server itself needs these, for its folder and the container engine.
_OF_SERVERS_PREFIXES = ("LYCEUM_MAGIC_", "DOCKER_")


def for_run(source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for a run."""
    return {name: value for name, value in source.items() if _is_for_run(name)}


def for_supervisor(source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a supervisor is started with: its program's, and the debug trail's.

    It takes the latter out before the program begins.
    """
    return {
        name: value for name, value in source.items() if _is_for_run(name) or name == trail.VARIABLE
    }


def for_uv(source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for an installer, and for the builds that it starts."""
    return {name: value for name, value in source.items() if _is_for_uv(name)}


def for_server(source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for a server; it gets no others of the kernel's.

    Its runs have the same user: if that is root, they can read the server's environment.
    """
    return {
        name: value
        for name, value in source.items()
        if _is_for_uv(name) or name.startswith(_OF_SERVERS_PREFIXES)
    }


def _is_for_run(name: str) -> bool:
    return name in _OF_RUNS or name.startswith(_OF_RUNS_PREFIXES)


def _is_for_uv(name: str) -> bool:
    return (
        _is_for_run(name)
        or name in _OF_UV
        or name.startswith(_OF_UV_PREFIXES)
        or name.lower() in _PROXIES
    )
