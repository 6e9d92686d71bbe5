"""Agents that are declared with a model, run by pydantic-ai: the optional extra `llm`."""
