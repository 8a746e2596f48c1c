"""The demo's backend: a plain HTTP server that answers with what it saw.

It prints its address, and ends when its standard input does: when the demo has.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirror(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        host, port = self.client_address[:2]
        answer = (
            f"Hello from behind termproxy.\n\nYou came over TLS; it saw plain HTTP from {host}:{port}:"
            f"\n\n{self.requestline}\n{self.headers}"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass  # the proxy's access log is what the demo shows


def main() -> None:
    try:
        serve_until_left()
    except KeyboardInterrupt:
        pass  # Ctrl-C in the demo's terminal reaches us, too


def serve_until_left() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"127.0.0.1:{server.server_address[1]}", flush=True)  # noqa: T201 - its one answer
    sys.stdin.read()


if __name__ == "__main__":
    main()
