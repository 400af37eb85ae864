"""Every error this package raises on purpose, in one tree.

::

    LyceumError
    ├── OptionError             an option, argument or cell that cannot be sent as it is
    │   └── CellSyntaxError     the cell is not Python
    ├── ConfigError             a setting, a login file or a proxy variable that cannot be used
    ├── NotAuthorised           401, 403: the key is missing, wrong, expired, or not enough
    ├── QuotaExceeded           402, 429: no credits left, or too many requests
    ├── RequestRefused          any other 4xx: the server understood and said no
    ├── ServerUnreachable       no connection could be made, or it broke and stayed broken
    ├── ServerError             5xx: the server failed
    │   └── ServiceUnavailable  503: it says that it lacks something, and has done nothing
    ├── ProtocolError           the answer is not what Lyceum's API says
    ├── EmbeddedServerError     the server of this package could not be started or used
    ├── JournalUnavailable      the journal of runs on this machine cannot be written
    ├── UnknownRun              no run has that id, or the prefix fits several
    ├── TransferError           a value or file of a run could not come back
    ├── InvalidCallback         what came to a receiver is no callback, or not from whom it should
    └── RunFailed               the run ended, and not as `completed`
        ├── RunTimedOut         its time limit ended it
        ├── RunAborted          somebody aborted or stopped it
        └── RunLost             the platform failed it, or its end cannot be known

Messages say what was expected, what came and what to do. They never hold a key, a callback URL
or the source of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LyceumError(Exception):
    """Whatever went wrong in lyceum-magic."""


class OptionError(LyceumError):
    """An option or a cell that cannot be sent; nothing was started."""


class CellSyntaxError(OptionError):
    """The cell of a magic is not Python; its text is what Python says of it.

    IPython shows a SyntaxError that leaves a magic with all the frames of the magic.
    """


class ConfigError(LyceumError):
    """A setting outside the notebook (environment, login file) that cannot be used."""


class ApiError(LyceumError):
    """The server answered with an error.

    Args:
        message: one sentence for the reader.
        status_code: the HTTP status.
        retry_after_s: seconds that the server asked to wait, if it did.
    """

    def __init__(
        self, message: str, *, status_code: int, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_api_error, (
            type(self), str(self), self.status_code, self.retry_after_s,
        )  # fmt: skip


def _rebuild_api_error(
    cls: type[ApiError], message: str, status_code: int, retry_after_s: float | None
) -> ApiError:
    return cls(message, status_code=status_code, retry_after_s=retry_after_s)


class NotAuthorised(ApiError):
    """401 or 403."""


class QuotaExceeded(ApiError):
    """402 (credits) or 429 (rate)."""


class RequestRefused(ApiError):
    """Another 4xx: 400 and 422 name the bad field, 404 an unknown run, 413 a body too large."""


class ServerError(ApiError):
    """5xx, after the retries that are safe."""


class ServiceUnavailable(ServerError):
    """503 with a reason: what was asked for needs something that the server does not have now."""


class ServerUnreachable(LyceumError):
    """The server could not be reached, or the connection broke and could not be made again."""


class ProtocolError(LyceumError):
    """The server's answer does not have the form that Lyceum's API has."""


class EmbeddedServerError(LyceumError):
    """The embedded server could not be started, or cannot run here."""


class JournalUnavailable(LyceumError):
    """The journal cannot be written; a run that it could not note was not started."""


class UnknownRun(LyceumError):
    """No run has this id, or more than one begins with it."""


class TransferError(LyceumError):
    """A value or file that a run should have sent home did not come, or cannot be used here."""


class InvalidCallback(LyceumError):
    """What came is no callback of yours. Its text quotes nothing of it, and no secret."""


class RunFailed(LyceumError):
    """A run that ended other than `completed`.

    Where the program raised, the message names that exception, and `__cause__` is one of the same
    name, value and traceback.

    Attributes:
        run_id: the run's id, as the server gave it.
        state: its terminal state (`failed`, `system_failure`, `aborted`, `cancelled`).
        return_code: exit code of its main process, 128 + n for signal n; None where there is none.
        reason: one line about its end: what the program raised, or what the server said.
        ename, evalue: class name and message of what the program raised; empty if nothing.
        traceback: its traceback in lines, as Python prints it.
        hint: what to do about it, in one sentence; empty where nothing is known.
    """

    def __init__(
        self,
        reason: str,
        *,
        run_id: str,
        state: str,
        return_code: int | None = None,
        ename: str = "",
        evalue: str = "",
        traceback: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.run_id = run_id
        self.state = state
        self.return_code = return_code
        self.ename = ename
        self.evalue = evalue
        self.traceback = list(traceback)
        self.hint = hint
        #: A mode of `%xmode` that the cell has set, or "shown" if it has shown the error itself.
        self._style = ""

    def __str__(self) -> str:
        raised = ": ".join(filter(None, (self.ename, self.evalue)))
        return "\n".join(filter(None, (raised or self.reason, self.hint)))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_run_failed, (type(self), self.reason, {
            "run_id": self.run_id, "state": self.state, "return_code": self.return_code,
            "ename": self.ename, "evalue": self.evalue, "traceback": self.traceback,
            "hint": self.hint,
        })  # fmt: skip


def _rebuild_run_failed(cls: type[RunFailed], reason: str, facts: dict[str, Any]) -> RunFailed:
    return cls(reason, **facts)


class RunTimedOut(RunFailed):
    """The run's own time limit ended it."""


class RunAborted(RunFailed):
    """The run was aborted or stopped."""


class RunLost(RunFailed):
    """The platform failed the run, or its end could not be learnt."""
