"""The relay: a session's events, forwarded over Socket.IO to whoever holds a token for it."""
