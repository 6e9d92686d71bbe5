"""Redis Streams as a kombu transport: a normal broker for any Celery app."""
