"""Every error that this package raises on purpose, in one tree.

::

    LyceumError
    ├── OptionError             an option, argument or cell that cannot be sent as it is
    │   └── CellSyntaxError     the cell is not Python
    ├── ConfigError             a setting, a login file or a proxy variable that cannot be used
    ├── ApiError                the server answered with an error
    │   ├── NotAuthorised       401, 403: the key is missing, wrong, expired, or lacks the right
    │   ├── QuotaExceeded       402, 429: no credits left, or too many requests
    │   ├── RequestRefused      any other 4xx: the request was understood and refused
    │   └── ServerError         5xx: the server failed
    │       └── ServiceUnavailable  503: the server lacks something, and has started nothing
    ├── ServerUnreachable       no connection could be made, or it broke for good
    ├── ProtocolError           the answer does not follow Lyceum's API
    ├── EmbeddedServerError     the embedded server could not be started or used
    ├── JournalUnavailable      the journal of runs on this machine cannot be written
    ├── UnknownRun              no run has this id, or several ids begin with it
    ├── TransferError           a value or file of a run could not be brought back
    ├── InvalidCallback         a request to a receiver is not a genuine callback
    └── RunFailed               the run ended, but did not complete
        ├── RunTimedOut         its time limit ended it
        ├── RunAborted          it was aborted or stopped
        └── RunLost             the platform failed it, or its end is unknown

A message says what was expected, what came and what to do. It never holds a key, a callback URL
or the source of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LyceumError(Exception):
    """The base class of every error of this package."""


class OptionError(LyceumError):
    """An option or a cell that cannot be sent; nothing was started."""


class CellSyntaxError(OptionError):
    """The cell of a magic is not Python; the message is Python's own.

    Not a `SyntaxError`: IPython would show one together with all the frames of the magic.
    """


class ConfigError(LyceumError):
    """A setting outside the notebook, in the environment or a login file, that cannot be used."""


class ApiError(LyceumError):
    """The server answered with an error.

    Args:
        message: one sentence for the reader.
        status_code: the HTTP status.
        retry_after_s: seconds that the server asked the client to wait; None if it did not.
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
    """Any other 4xx: 400 and 422 name the bad field, 404 an unknown run, 413 too large a body."""


class ServerError(ApiError):
    """5xx, after every retry that is safe."""


class ServiceUnavailable(ServerError):
    """503 with a reason: the server lacks something that the run needs, such as an engine."""


class ServerUnreachable(LyceumError):
    """No connection to the server could be made, or it broke and could not be made again."""


class ProtocolError(LyceumError):
    """The server's answer does not have the form that Lyceum's API describes."""


class EmbeddedServerError(LyceumError):
    """The embedded server could not be started, or cannot run on this machine."""


class JournalUnavailable(LyceumError):
    """The journal cannot be written; a run that could not be noted in it was not started."""


class UnknownRun(LyceumError):
    """No run has this id, or several ids begin with it."""


class TransferError(LyceumError):
    """A value or file that a run was to bring back did not come, or cannot be used here."""


class InvalidCallback(LyceumError):
    """A request that is not a genuine callback. The message quotes neither it nor a secret."""


class RunFailed(LyceumError):
    """A run that ended in another state than `completed`.

    If the program raised an exception, the message names it, and `__cause__` is an exception of the
    same name, value and traceback.

    Attributes:
        run_id: the run's id, as the server gave it.
        state: its terminal state (`failed`, `system_failure`, `aborted`, `cancelled`).
        return_code: exit code of its main process, 128 + n for signal n; None if it has none.
        reason: one line about its end: the program's exception, or the server's reason.
        ename, evalue: class name and message of the program's exception; empty if it raised none.
        traceback: the exception's traceback in lines, as Python prints it.
        hint: one sentence about what to do; empty if no remedy is known.
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
        #: The mode of `%xmode` that the cell has set; "shown" if it has shown the error itself.
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
    """The platform failed the run, or its end could not be found out."""
