"""Exit codes: a program that runs a command learns from its code what became of the task."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hermes_async.domain.errors import (
    NotTaken,
    ServiceError,
    TaskCancelled,
    TaskError,
    TaskRejected,
    UserError,
)
from hermes_async.domain.task import TaskStatus

OK: Final = 0
FAILED: Final = 1
#: As click has it: the command, the configuration or a name is wrong.
USAGE: Final = 2
CANCELLED: Final = 3
REJECTED: Final = 4
#: An answer or a message that the task does not take: nothing is asked, somebody was first, it has ended.
NOT_TAKEN: Final = 6
#: EX_UNAVAILABLE: a server does not answer; trying again is safe.
UNAVAILABLE: Final = 69
#: EX_SOFTWARE: a fault of ours, or of an agent's module.
BROKEN: Final = 70
#: EX_TEMPFAIL: there is no result yet.
UNFINISHED: Final = 75
INTERRUPTED: Final = 130
#: As the shell tells of SIGPIPE: nobody reads our output any more.
UNREAD: Final = 141

#: The end of `--help` of every command whose code is a task's fate.
FATE_HELP: Final = "Exit code: 0 completed, 1 failed, 3 cancelled, 4 rejected; 2 wrong usage, 69 no server."

_FATES: Final[Mapping[TaskStatus, int]] = MappingProxyType(
    {
        TaskStatus.COMPLETED: OK,
        TaskStatus.FAILED: FAILED,
        TaskStatus.CANCELLED: CANCELLED,
        TaskStatus.REJECTED: REJECTED,
    }
)


def fate(status: TaskStatus) -> int:
    """Return the exit code that tells how a task ended; OK for one that has not."""
    return _FATES.get(status, OK)


def code_of(error: BaseException) -> int:
    """Return the exit code of an error."""
    codes: tuple[tuple[type[BaseException], int], ...] = (
        (NotTaken, NOT_TAKEN),
        (UserError, USAGE),
        (ServiceError, UNAVAILABLE),
        (TaskCancelled, CANCELLED),
        (TaskRejected, REJECTED),
        (TaskError, FAILED),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), BROKEN)
