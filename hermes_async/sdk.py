"""What authors of agents and callbacks import."""

from hermes_async.core.context import TaskContext
from hermes_async.core.parent_context import ParentContext
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.core.tool import Tool, tool
from hermes_async.domain.errors import BudgetExceeded, QuestionTimeout, RetryAfter, ToolFailed
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import TaskProgress, TaskResult

__all__ = [
    "AnyEvent",
    "BudgetExceeded",
    "ParentContext",
    "QuestionTimeout",
    "RetryAfter",
    "Subagent",
    "TaskContext",
    "TaskProgress",
    "TaskResult",
    "Tool",
    "ToolFailed",
    "subagent",
    "tool",
]
