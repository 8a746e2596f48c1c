"""What a strict gateway refuses and accepts, from either side, as bytes: no socket, no parser.

The rules are RFC 9110's and RFC 9112's, read strictly where they leave room: a message that two
readers could take in two ways is refused.  `kinds` says what each vector promises.
"""

from __future__ import annotations

from tests.http.cases.accepted_requests import ACCEPTED_REQUESTS
from tests.http.cases.accepted_responses import ACCEPTED_RESPONSES
from tests.http.cases.kinds import Accepted, AcceptedResponse, Refused, RefusedResponse, Request, Then
from tests.http.cases.refused_bodies import BODIES
from tests.http.cases.refused_fields import FIELDS
from tests.http.cases.refused_framing import FRAMING
from tests.http.cases.refused_request_lines import REQUEST_LINES
from tests.http.cases.refused_responses import REFUSED_RESPONSES

__all__ = [
    "ACCEPTED_REQUESTS",
    "ACCEPTED_RESPONSES",
    "REFUSED_REQUESTS",
    "REFUSED_RESPONSES",
    "Accepted",
    "AcceptedResponse",
    "Refused",
    "RefusedResponse",
    "Request",
    "Then",
]

REFUSED_REQUESTS: list[Refused] = [*REQUEST_LINES, *FIELDS, *FRAMING, *BODIES]
