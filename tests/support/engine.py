"""The container engine, which may not run here, or may have no image and no way to one."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

#: Asked in a process of its own, whose leaks of sockets are not ours. An engine whose registry does not
#: answer says nothing for a long time.
_ASK = """
import sys, docker
try:
    engine = docker.from_env(timeout=10)
    try:
        engine.images.get(sys.argv[1])
    except docker.errors.ImageNotFound:
        engine.images.pull(sys.argv[1])
except Exception as exc:
    sys.exit(f"{type(exc).__name__}: {exc}")
"""
#: Seconds that an image may take to come.
PATIENCE = 120.0


@cache
def why_not(image: str) -> str:
    """Say why no container of an image can be run here, after an attempt to fetch it; empty if one can."""
    command = [sys.executable, "-c", _ASK, image]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"the image {image} did not come within {PATIENCE:g} s"
    if asked.returncode:
        return f"no container engine here has or gets the image {image} ({asked.stderr.strip()})"
    return ""
