"""What an operation says that has no count of bytes to give: one of these, none of which is above 0.

Plain integers: every event compares with some, and Python takes 0.1 µs to find an enum's member.
"""

from enum import IntEnum
from typing import Final

DONE: Final = 0  # the handshake, or the shutdown, is over
WANT_READ: Final = -1  # try again when the source is readable
WANT_WRITE: Final = -2  # try again when the client's socket is writable
CLOSED: Final = -3  # the source has ended: close_notify seen, or the backend's end of stream
SINK_FULL: Final = -4  # not all could be passed on; what is left is in the Scratch
MORE: Final = -5  # passed on; call again without waiting for an event
TRUNCATED: Final = -6  # the client's socket has ended, without a close_notify to say "that was all"
HELLO: Final = -7  # the ClientHello has come, and stops_at_hello was asked for


class Miss(IntEnum):
    """Why a client's session was not resumed."""

    NONE_OFFERED = 0
    UNKNOWN_KEY = 1  # no key of ours has that name: another server's ticket, or an old ring's
    RETIRED_KEY = 2  # its key is past its time, or was revoked
    OTHER_GROUP = 3  # it was made under another frontend's or rule's policy
    DAMAGED = 4
    EXPIRED = 5
    OTHER_VERSION = 6
    CLIENT_CERTIFICATE_EXPIRED = 7
    NOT_ACCEPTED = 8  # by OpenSSL, as for a cipher suite that was not offered again
    EVICTED = 9  # a session id that the cache does not know (any longer)
