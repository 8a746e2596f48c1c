"""Load a server as people do, and look whether a single request gets lost: what `perf/load` runs.

profiles     who comes, and what is done to the server meanwhile; locustfiles/ has a file for each
habits       how much, how often, how large: drawn at random
people       users of locust; all they do goes through a Client
client       a TLS connection with checks, HTTP/1.1 and WebSocket on it
ledger       what a client saw: handshakes, losses, and which of these died with a worker
backend      answers them: a process of its own
server       the termproxy in front of it, and what it counted
storm        reloads it and kills its workers
run, report  one run, from the command line to a table
"""

import sys
from pathlib import Path

# Messages are read by the tests' strict reader.  Last on the path, so that a termproxy that is
# measured from elsewhere never gets the modules of this checkout.
sys.path.append(str(Path(__file__).resolve().parents[2]))
