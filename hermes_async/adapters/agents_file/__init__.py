"""agents.yaml: from text to a checked configuration, every mistake with its line and column."""

from hermes_async.adapters.agents_file.file import json_schema, load, parse

__all__ = ["json_schema", "load", "parse"]
