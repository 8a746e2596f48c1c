"""What a non-blocking operation says when it has no count to give; all below one, so never a count."""

from enum import IntEnum


class Outcome(IntEnum):
    DONE = 0  # the handshake, or the shutdown, is over
    WANT_READ = -1  # try again when the source is readable
    WANT_WRITE = -2  # try again when the client's socket is writable
    CLOSED = -3  # the source has ended: close_notify seen, or the backend's end of stream
    SINK_FULL = -4  # not all could be passed on; what is left is in the Scratch
    TRUNCATED = -6  # the client's socket has ended, without the close_notify that says "that was all"
    MORE = -5  # passed on; call again without waiting for an event
