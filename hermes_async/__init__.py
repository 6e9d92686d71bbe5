"""Delegate to subagents without ever blocking the chat."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hermes_async.core.delegation import Delegation
from hermes_async.core.handle import TaskHandle
from hermes_async.core.session import Batch, Delivery, Session
from hermes_async.domain.errors import (
    BudgetExceeded,
    HermesError,
    NotTaken,
    ServiceError,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskRejected,
    UserError,
)
from hermes_async.domain.gap import Gap
from hermes_async.sdk import (
    AnyEvent,
    ParentContext,
    QuestionTimeout,
    RetryAfter,
    Subagent,
    TaskContext,
    TaskProgress,
    TaskResult,
    Tool,
    ToolFailed,
    subagent,
    tool,
)

if TYPE_CHECKING:
    from hermes_async.bootstrap import connect

__all__ = [
    "AnyEvent",
    "Batch",
    "BudgetExceeded",
    "Delegation",
    "Delivery",
    "Gap",
    "HermesError",
    "NotTaken",
    "ParentContext",
    "QuestionTimeout",
    "RetryAfter",
    "ServiceError",
    "Session",
    "Subagent",
    "TaskCancelled",
    "TaskContext",
    "TaskError",
    "TaskFailed",
    "TaskHandle",
    "TaskProgress",
    "TaskRejected",
    "TaskResult",
    "Tool",
    "ToolFailed",
    "UserError",
    "connect",
    "subagent",
    "tool",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what needs Redis only when it is asked for, so that a module of agents imports in no time."""
    if name == "connect":
        return import_module("hermes_async.bootstrap").connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
