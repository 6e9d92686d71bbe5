"""What a parent is made of, as agents.yaml declares it: its model and what that is told of itself."""

from __future__ import annotations

from pydantic_ai.models import Model

from hermes_async.adapters.model.names import full_name, model_for
from hermes_async.adapters.model.prices import check_price
from hermes_async.core.delegation import Delegation
from hermes_async.domain.agent import AgentSpec
from hermes_async.domain.errors import ConfigError


def model_of(spec: AgentSpec) -> Model:
    """Return the model that an agent talks with.

    Raises:
        ConfigError: it is no conversation, has no model, that cannot be used here, or has no known price
            although there is a limit on the cost.
    """
    if spec.type != "conversational":
        raise ConfigError(f"agent {spec.name!r} is no conversation: give it `type: conversational`")
    if spec.model is None:
        raise ConfigError(f"agent {spec.name!r} has no model: give it one, such as `model: gpt-4o-mini`")
    check_price(spec.model, spec.base_url, spec.limits)
    return model_for(spec.model, spec.base_url, spec.api_key)


def full_of(spec: AgentSpec) -> str:
    """Return the `provider:model` that an agent talks with."""
    return full_name(spec.model or "", spec.base_url)


def instructions_of(spec: AgentSpec, delegation: Delegation) -> str:
    """Return the system prompt: what agents.yaml says, and how to delegate."""
    return "\n\n".join(filter(None, (spec.instructions, delegation.instructions)))
