"""The Celery side: pools, signals and the tasks that run subagents."""
