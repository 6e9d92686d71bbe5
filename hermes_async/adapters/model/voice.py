"""A model as one task talks to it: what it says is shown at once, and for a busy one the task waits aside."""

from __future__ import annotations

import time
from collections import Counter, deque

from pydantic_ai.exceptions import ModelAPIError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from hermes_async.adapters.model.failures import is_busy, wait_for
from hermes_async.adapters.model.sentences import brief, named
from hermes_async.adapters.model.show import Shown
from hermes_async.core.context import TaskContext
from hermes_async.domain.events import MessageData


class Voice(WrapperModel):
    """Streams every answer, whoever asks: pydantic-ai's own streaming takes a task and three scopes for each.

    Args:
        wrapped: the model.
        ctx: the task.
        shown: what is shown of it.
    """

    def __init__(self, wrapped: Model, ctx: TaskContext, shown: Shown) -> None:
        super().__init__(wrapped)
        self._ctx = ctx
        self.shown = shown
        #: What was said to the task, and the model has not heard yet.
        self.heard: deque[MessageData] = deque()

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the model's answer, when the whole of it was streamed."""
        tries = Counter[bool]()
        while True:
            self.shown.begin()
            try:
                return await self._streamed(messages, model_settings, model_request_parameters)
            except ModelAPIError as error:
                if self.shown.has_text:  # what was shown must not begin again
                    raise
                kind = is_busy(error)
                tries[kind] += 1
                seconds = wait_for(error, tries[kind], named(self.wrapped))
                self._ctx.progress(None, f"{brief(error)}; asked again in {seconds:g} s")
                await self._wait(seconds)

    async def hear(self) -> None:
        """Note what was said to the task."""
        self.heard.extend(await self._ctx.messages())

    async def _streamed(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> ModelResponse:
        try:
            async with self.wrapped.request_stream(messages, settings, parameters) as stream:
                async for event in stream:
                    self.shown.take(event)
                return stream.get()
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # JSON that is no chunk
            raise UnexpectedModelBehavior(f"{type(error).__name__}: {error}") from error

    async def _wait(self, seconds: float) -> None:
        """Wait without a slot; who says something to the task meanwhile does not shorten it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.heard.extend(await self._ctx.messages(wait=left))
