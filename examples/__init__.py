"""Subagents that do real work without a network: examples to read, to run and to measure with."""
