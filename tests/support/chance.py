"""State machines of Hypothesis: as many examples as HERMES_TEST_EXAMPLES says, by default 30."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_by_chance(machine: type[RuleBasedStateMachine], *, steps: int, share: int = 1) -> None:
    """Run a machine for so many steps an example, and `1/share` of the examples."""
    examples = int(os.environ.get("HERMES_TEST_EXAMPLES", "30")) // share
    how = settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None)
    run_state_machine_as_test(machine, settings=how)
