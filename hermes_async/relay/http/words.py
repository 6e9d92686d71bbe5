"""The parameters that several operations share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

Limit = Annotated[int, Query(ge=1, le=500, description="how many at most")]
Wait = Annotated[float, Query(ge=0, le=60, description="seconds to wait for news, if there are none yet")]
After = Annotated[int, Query(ge=0, le=2**53, description="the last `seq` that you have seen")]
