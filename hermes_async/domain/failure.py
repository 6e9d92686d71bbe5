"""Why a task ended without a result, as values that travel."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Reason(StrEnum):
    """Why a task failed or was rejected."""

    ERROR = "error"
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    EXPIRED = "expired"
    TOTAL_TIMEOUT = "total_timeout"
    WORKER_LOST = "worker_lost"
    BUDGET_EXCEEDED = "budget_exceeded"
    LIMIT_EXCEEDED = "limit_exceeded"


class ErrorInfo(BaseModel):
    """What an agent raised, as text: the class may not exist where the parent runs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    message: str = ""
    traceback: str = ""
