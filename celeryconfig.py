"""Celery settings of this project: read after the framework's own, so what is said here wins.

Any setting of https://docs.celeryq.dev/en/stable/userguide/configuration.html may stand here. Those that keep
"nothing accepted is lost" true (late acks, JSON only, no result backend) are set already; leave them alone.
"""

# Let monitors such as Flower follow the workers: `celery -A hermes_async.worker.app events`.
worker_send_task_events = False
