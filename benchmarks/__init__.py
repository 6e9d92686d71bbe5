"""What the framework costs, beside plain Celery on the same Redis; explained in docs/benchmarks.md."""
