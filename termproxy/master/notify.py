"""Tell systemd how we are (sd_notify(3)), when it asked to be told."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send "READY=1", "STOPPING=1" and the like; does nothing when nobody asked."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            pass  # it no longer listens; serving matters more
