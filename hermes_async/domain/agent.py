"""What agents.yaml may say, word for word: agents, their subagents, the pools, the relay and the limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, FailFast, Field, field_validator

from hermes_async.domain.errors import UnknownAgent, did_you_mean
from hermes_async.domain.model_settings import ModelSettings
from hermes_async.domain.secret import signing_secrets
from hermes_async.domain.spec import Count, Must, Name, Names, ResolvedName, Seconds, Spec, Switch, Text
from hermes_async.domain.urls import broker_url, masked, model_url, state_url, web_url

Fallback = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.:/@-]{0,199}$"),
    Must("the name of an agent, or of a model such as openai:gpt-4o"),
]
Function = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"),
    Must("the place of a Python function, such as my_agents.research:run"),
]
BrokerUrl = Annotated[str, AfterValidator(broker_url), Must("a URL such as redis://localhost:6379/0")]
StateUrl = Annotated[str, AfterValidator(state_url), Must("a URL such as redis://localhost:6379/0")]
ModelUrl = Annotated[str, AfterValidator(model_url), Must("a URL such as http://localhost:8000/v1")]
WebhookUrl = Annotated[str, AfterValidator(web_url), Must("a URL such as https://example.com/hook")]
Secrets = Annotated[
    str | tuple[str, ...],
    BeforeValidator(signing_secrets),
    Must("text, or a list of texts, the newest first"),
]
Key = Annotated[
    str,
    Field(pattern=r"^[!-~]*$"),  # others would be shown by what complains of a header
    Must("text of letters, digits and signs, without blanks"),
]
Version = Annotated[
    str, Field(pattern=r"^\d{1,9}(\.\d{1,9}){0,4}$"), Must('a version in quotes, such as "2.4"')
]


Namespace = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_-]{1,40}$"),
    Must("a name of at most 40 letters, digits, `_` and `-`"),
]
#: That of a project which does not say any.
NAMESPACE: Final = "hermes"


class RetryPolicy(Spec):
    """How long to wait before a failed attempt is tried again: initial * factor^n, at most maximum."""

    #: Seconds before the first retry.
    initial: Seconds = 1.0
    #: Each wait is this many times the one before.
    factor: Annotated[float, Field(ge=1, le=1000), Must("a number of at least 1")] = 2.0
    #: Seconds; no wait is longer.
    maximum: Seconds = 60.0
    #: Draw each wait at random between 0 and its length, so that failures do not return in step.
    jitter: Switch = True
    #: Names of exceptions that no retry can cure, such as "ValueError".
    non_retryable: Names = ()


class Webhook(Spec):
    """Where a finished task is posted (Standard Webhooks)."""

    url: WebhookUrl
    #: Signs each post; several while receivers change over to the first of them. It is never written down.
    secret: Secrets | None = Field(default=None, repr=False, exclude=True)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret that signs, the newest first."""
        return (self.secret,) if isinstance(self.secret, str) else self.secret or ()


class Callbacks(Spec):
    """The names of the functions to call when a task of this subagent has news."""

    on_complete: Text | None = None
    on_failure: Text | None = None
    on_progress: Text | None = None


class Idempotency(Spec):
    """Within which circle, and for how long, the same idempotency key means the same task."""

    scope: Literal["session", "parent", "global"] = "session"
    #: Seconds.
    ttl: Seconds = 86_400.0


class RunLimits(Spec):
    """What a task may spend together with all tasks below it, then it fails (`budget_exceeded`)."""

    #: Requests to the model.
    requests: Count | None = None
    tool_calls: Annotated[int, Field(ge=0, le=1_000_000_000), Must("a whole number of at least 0")] | None = (
        None
    )
    total_tokens: Count | None = None
    #: US dollars.
    cost_usd: Annotated[float, Field(gt=0), Must("an amount of US dollars greater than 0")] | None = None
    #: Of the clock, from the start of its first attempt.
    seconds: Seconds | None = None


class SubagentSpec(Spec):
    """A subagent: an agent as one parent invokes it."""

    #: What the parent calls it.
    id: Name
    #: The agent that does the work; loading fills it in: the agent of this id, else `<id>_agent`.
    agent: ResolvedName = ""
    #: False: the caller waits for the result.
    async_: Switch = Field(default=True, alias="async")
    #: Seconds of one attempt, then it is aborted; null: no limit.
    timeout: Seconds | None = 600.0
    #: Seconds a task may wait for its start, then it fails (`expired`).
    queue_timeout: Seconds | None = None
    #: Seconds without a sign of life, then the attempt is aborted.
    idle_timeout: Seconds | None = None
    #: Seconds from the dispatch to the end, over all attempts, then the task fails (`total_timeout`).
    total_timeout: Seconds | None = None
    #: Unset: retry if `retry_limit` says so; false: never, whatever `retry_limit` says. See `retries`.
    retry_on_failure: Switch | None = None
    #: Attempts after the first; unset: 2 when `retry_on_failure` is true, else 0.
    retry_limit: Annotated[int, Field(ge=0, le=1000), Must("a whole number of at least 0")] | None = None
    retry: RetryPolicy = RetryPolicy()
    #: Running at once per parent session; the rest wait, in order.
    concurrency_limit: Count | None = None
    #: 9 is first.
    priority: Annotated[int, Field(ge=0, le=9), Must("a whole number from 0 to 9")] = 5
    callbacks: Callbacks = Callbacks()
    webhook: Webhook | None = None
    #: What takes over when this one has failed for good: an agent, resolved like `agent`, or another model.
    fallback: Fallback | None = None
    idempotency: Idempotency | None = None
    #: What a task may spend, together with those below it; what is unset is as the agent says.
    limits: RunLimits = RunLimits()
    #: The model for this use of the agent, instead of the agent's own.
    model: Text | None = None
    #: Of the model; what is unset is as the agent says.
    settings: ModelSettings = ModelSettings()

    @property
    def retries(self) -> int:
        """How many times a failed attempt is tried again: the one place that knows the defaults."""
        if self.retry_on_failure is False:
            return 0
        if self.retry_limit is None:
            return 2 if self.retry_on_failure else 0
        return self.retry_limit

    def recorded(self) -> SubagentSpec:
        """Return what may lie in a task's record: no secret, and nothing of a URL that may be one."""
        if self.webhook is None:
            return self
        return self.model_copy(update={"webhook": Webhook(url=masked(self.webhook.url))})

    def without_model(self) -> SubagentSpec:
        """Return what of these options counts for a fallback, which has a model of its own."""
        return self.model_copy(update={"model": None, "settings": ModelSettings()})

    def over(self, base: SubagentSpec) -> SubagentSpec:
        """Lay these options over `base`, those of `retry`, `limits` and `settings` one by one."""
        said = super().over(base)
        deep = self.model_fields_set & {"retry", "limits", "settings"}
        return said.model_copy(update={part: getattr(self, part).over(getattr(base, part)) for part in deep})


class SessionSpec(Spec):
    """How the sessions of a parent agent behave."""

    #: ordered: the callbacks of one session run one at a time, in the order of events.
    lock: Literal["ordered", "none"] = "ordered"
    #: Of what was said, so many go to the model at most; older turns are left out.
    context_tokens: Count = 100_000


class AgentSpec(Spec):
    """An agent: a Python function (`run`), a declared one (`model`), or a conversation that delegates."""

    #: Its key under `agents:`; loading fills it in.
    name: ResolvedName = ""
    type: Literal["task", "conversational"] = "task"
    #: The function that does the work, `package.module:function`; unset: a decorated one of this name.
    run: Function | None = None
    #: `provider:model`; a bare name is one of OpenAI, or of the server at `base_url`.
    model: Text | None = None
    #: A server that speaks OpenAI's chat completions; unset: what OPENAI_BASE_URL says, else OpenAI.
    base_url: ModelUrl | None = None
    #: The key of the model's server or provider; unset: what its own variable says. It is never written down.
    api_key: Key | None = Field(default=None, repr=False, exclude=True)
    #: What the model is told of how to answer.
    settings: ModelSettings = ModelSettings()
    instructions: Text | None = None
    #: What a parent's model reads before it delegates; unset: the first paragraph of `instructions`.
    description: Text | None = None
    tools: Names = ()
    limits: RunLimits = RunLimits()
    #: Running at once, whoever invokes it; the rest wait.
    concurrency_limit: Count | None = None
    #: The lane; unset: async for `async def`, process for `def`.
    pool: Literal["async", "process"] | None = None
    session: SessionSpec = SessionSpec()
    subagents: Annotated[tuple[SubagentSpec, ...], FailFast()] = ()

    def with_model(self, model: str) -> AgentSpec:
        """Return the same agent with another model; its server and its key are for those of one provider."""
        elsewhere = self.model is not None and provider_of(model) != provider_of(self.model)
        stays = {"base_url": None, "api_key": None} if elsewhere else {}
        return self.model_copy(update={"model": model, **stays})


def provider_of(model: str) -> str:
    """Return the provider of a model; OpenAI has several names."""
    provider, colon, _ = model.partition(":")
    return "openai" if not colon or provider.startswith("openai") else provider


class PoolSpec(Spec):
    """The size of the worker pools."""

    #: Processes of the process lane, while there is little to do.
    min_workers: Count = 2
    #: Up to how many it grows, and the async lane in the same proportion; unset: neither does.
    max_workers: Count | None = None
    #: Load, the share of slots that run a task, from which on a pool doubles; below half of it, it halves.
    scale_threshold: Annotated[
        float, Field(gt=0, le=1), Must("a number greater than 0 and at most 1, such as 0.7")
    ] = 0.7
    #: Coroutines at once in one worker of the async lane, at most.
    slots_per_worker: Annotated[int, Field(ge=1, le=100_000), Must("a whole number from 1 to 100000")] = 100


class RelaySpec(Spec):
    """Where the relay listens, and what signs its tokens."""

    host: Text = "127.0.0.1"
    #: 0: any free one.
    port: Annotated[int, Field(ge=0, le=65_535), Must("a port number from 0 to 65535")] = 8765
    secret: Text | None = Field(default=None, repr=False)
    #: Of the pages that may connect; none: those of the relay's own.
    origins: tuple[Text, ...] = ()
    #: Websockets at once, and from one address.
    max_connections: Count = 10_000
    max_per_address: Count = 1_000


class GateLimits(Spec):
    """What the whole project may have at once."""

    #: Levels of delegation below a session; 1: subagents have no subagents.
    max_depth: Count = 5
    #: Tasks running at once; the rest wait.
    max_running: Count | None = None
    #: Tasks that may wait for their turn; one more is refused (`limit_exceeded`).
    max_queued: Count | None = None


NO_LIMITS: Final = GateLimits()


class AgentsConfig(Spec):
    """The whole of agents.yaml, every name in it resolved."""

    version: Version = "2.4"
    agents: Mapping[Name, AgentSpec] = {}
    async_worker_pool: PoolSpec = PoolSpec()
    #: The broker; unset: the embedded Redis.
    task_queue: BrokerUrl | None = Field(default=None, repr=False)
    #: The Redis that keeps the records; unset: the broker's own, when it is Redis.
    state: StateUrl | None = Field(default=None, repr=False)
    #: What the names of all keys and queues begin with: projects that share a server need one each.
    namespace: Namespace = NAMESPACE
    relay: RelaySpec = RelaySpec()
    limits: GateLimits = GateLimits()

    @field_validator("agents")
    @classmethod
    def _name_the_agents(cls, agents: Mapping[str, AgentSpec]) -> Mapping[str, AgentSpec]:
        return {name: agent.model_copy(update={"name": name}) for name, agent in agents.items()}

    def agent(self, name: str) -> AgentSpec:
        """Return the agent of that name, or raise UnknownAgent."""
        if name not in self.agents:
            raise UnknownAgent(f"no agent {name!r}{did_you_mean(name, self.agents) or _listing(self.agents)}")
        return self.agents[name]

    def has_model(self, name: str) -> bool:
        """Return whether a task agent is run by a model, be it its own or that of a parent's subagent."""
        agent = self.agents[name]
        if agent.type != "task" or agent.run is not None:
            return False
        uses = (use for parent in self.agents.values() for use in parent.subagents if use.agent == name)
        return agent.model is not None or any(use.model is not None for use in uses)

    def subagent(self, parent: str, name: str) -> SubagentSpec:
        """Return the subagent that `parent` calls `name`, or raise UnknownAgent."""
        subagents = {subagent.id: subagent for subagent in self.agent(parent).subagents}
        if name not in subagents:
            cure = did_you_mean(name, subagents) or _listing(subagents)
            raise UnknownAgent(f"agent {parent!r} has no subagent {name!r}{cure}")
        return subagents[name]


def _listing(names: Mapping[str, object]) -> str:
    return f"; there is {', '.join(names)}" if names else "; there is none"
