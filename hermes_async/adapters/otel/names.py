"""The names that spans and attributes have: OpenTelemetry's for messaging and for generative AI, and ours.

Those for generative AI are still in development there; they are here and nowhere else.
"""

from __future__ import annotations

from typing import Final

#: The instrumentation scope.
SCOPE: Final = "hermes_async"

# -- messaging ---------------------------------------------------------------------------------------------
SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.type"
OPERATION_NAME: Final = "messaging.operation.name"
DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION: Final = "messaging.message.conversation_id"
CLIENT_ID: Final = "messaging.client.id"

# -- generative AI -----------------------------------------------------------------------------------------
AI_OPERATION: Final = "gen_ai.operation.name"
AI_AGENT: Final = "gen_ai.agent.name"
AI_CONVERSATION: Final = "gen_ai.conversation.id"
AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
INVOKE_AGENT: Final = "invoke_agent"

# -- general -----------------------------------------------------------------------------------------------
ERROR_TYPE: Final = "error.type"
METHOD: Final = "http.request.method"
URL: Final = "url.full"

# -- ours (those by which a waterfall finds its spans are in `domain/spans.py`) ------------------------------
SESSION_ID: Final = "hermes.session.id"
ROOT_TASK_ID: Final = "hermes.task.root_id"
PARENT_TASK_ID: Final = "hermes.task.parent_id"
WAITED_MS: Final = "hermes.queue.wait_ms"
REASON: Final = "hermes.task.reason"
CALLBACK_ID: Final = "hermes.callback.id"
CALLBACK_KIND: Final = "hermes.callback.kind"


#: The name of the span of a post to a webhook; to which, an attribute says.
WEBHOOK: Final = "webhook"


def send(agent: str) -> str:
    """Return the name of the span of a dispatch."""
    return f"send {agent}"


def wait(agent: str) -> str:
    """Return the name of the span of a task's time in the queue."""
    return f"wait {agent}"


def process(agent: str) -> str:
    """Return the name of the span of an attempt."""
    return f"process {agent}"


def invoke(agent: str) -> str:
    """Return the name of the span of an agent at work."""
    return f"{INVOKE_AGENT} {agent}"


def callback(name: str) -> str:
    """Return the name of the span of a call."""
    return f"callback {name}"
