"""The servers compared, and the backend behind all of them.

Each row is data: a command and a configuration with `$placeholders`, filled in
by `processes.start`.  Peers get what their own documentation advises for
production: TLS 1.2 and 1.3, an accept queue of 4096, no logs per connection, an
unprivileged user, and the cipher suites in one order, so that all do the same work.
All else is left at its default.

Of each mode, the first one is the one that the others are compared with.
"""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

# TLS 1.3's, in termproxy's default order; every server's own order decides.
CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What loads want of the servers that they are given to."""

    # Of the site's certificates.
    certificate: str = "ecdsa"
    workers: int = 1
    connections: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One program that serves, and how to start, ask and stop it."""

    name: str
    # The table's column, which the same program's modes share; left out, its name.
    column: str = ""
    command: str
    version: str
    config: str = ""
    config_as_root: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    speaks_tls: bool = True
    # What it has certificates for, where clients ask for names; the first one is its default.
    names: tuple[str, ...] = ()
    # Whether it can be given a folder of certificates instead of one.
    takes_folders: bool = True

    def command_for(self, places: dict[str, str]) -> list[str]:
        return [Template(word).substitute(places) for word in self.command.split()]

    def version_command(self, termproxy: Path) -> list[str]:
        return [Template(word).substitute(termproxy=termproxy) for word in self.version.split()]

    def config_for(self, places: dict[str, str]) -> str:
        # Only root can give up its rights; run by anybody else, peers stay who they are.
        text = (self.config_as_root if os.geteuid() == 0 else "") + self.config
        return Template(text).substitute(places)


TERMPROXY = Server(
    name="termproxy",
    command="$termproxy run -c $config",
    version="$termproxy --version",
    config="""\
workers = $workers
[log]
access = "off"
[limits]
connections = $connections
[[frontend]]
name = "clients"
listen = ["127.0.0.1:$port"]
cluster = "web"
certificates = ["$pem"]
[cluster.web]
servers = ["127.0.0.1:$backend_port"]
""",
    config_as_root='user = "nobody"\n',
    # TERM drains, which waits for connections that a load has left open.
    stop_signal=signal.SIGINT,
)

HITCH = Server(
    name="hitch",
    command="hitch --config=$config",
    version="hitch --version",
    config="""\
frontend = "[127.0.0.1]:$port"
backend = "[127.0.0.1]:$backend_port"
pem-$pem_kind = "$pem"
ecdh-curve = "$groups"
workers = $workers
backlog = 4096
tls-protos = TLSv1.2 TLSv1.3
ciphersuites = "$ciphersuites"
prefer-server-ciphers = on
log-level = 0
daemon = off
""",
    config_as_root="""\
user = "_hitch"
group = "_hitch"
""",
)

NGINX_STREAM = Server(
    name="nginx-stream",
    column="nginx",
    takes_folders=False,
    command="nginx -e $directory/nginx-stream.error -c $config",
    version="nginx -v",
    config="""\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
pid $directory/$port.pid;
error_log $directory/nginx-stream.error;
worker_processes $workers;
events { worker_connections $sockets; }
stream {
    access_log off;
    server {
        listen 127.0.0.1:$port ssl backlog=4096;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_prefer_server_ciphers on;
        ssl_conf_command Ciphersuites $ciphersuites;
        ssl_certificate $chain;
        ssl_certificate_key $key;
        tcp_nodelay on;
        proxy_pass 127.0.0.1:$backend_port;
    }
}
""",
    config_as_root="user www-data;\n",
)

HAPROXY = Server(
    name="haproxy",
    command="haproxy -db -f $config",
    version="haproxy -v",
    config="""\
global
    nbthread $workers
    maxconn $connections
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-bind-ciphersuites $ciphersuites
defaults
    mode tcp
    maxconn $connections
    backlog 4096
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend clients
    bind 127.0.0.1:$port ssl crt $pem
    default_backend web
backend web
    server web 127.0.0.1:$backend_port
""",
    config_as_root="""\
global
    user haproxy
    group haproxy
""",
)

TERMPROXY_HTTP = replace(
    TERMPROXY,
    name="termproxy-http",
    column="termproxy",
    config=TERMPROXY.config.replace('cluster = "web"\n', 'cluster = "web"\nmode = "http"\n'),
)

# With the fields that a backend wants to see, as its documentation shows them, and kept connections.
NGINX_HTTP = Server(
    name="nginx-http",
    column="nginx",
    takes_folders=False,
    command="nginx -e $directory/nginx-http.error -c $config",
    version="nginx -v",
    config="""\
daemon off;
pid $directory/$port.pid;
error_log $directory/nginx-http.error;
worker_processes $workers;
events { worker_connections $sockets; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 10m;
    client_body_temp_path $directory/temporary-body;
    proxy_temp_path $directory/temporary-proxy;
    fastcgi_temp_path $directory/temporary-fastcgi;
    scgi_temp_path $directory/temporary-scgi;
    uwsgi_temp_path $directory/temporary-uwsgi;
    upstream web {
        server 127.0.0.1:$backend_port;
        keepalive 64;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:$port ssl backlog=4096;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_prefer_server_ciphers on;
        ssl_conf_command Ciphersuites $ciphersuites;
        ssl_certificate $chain;
        ssl_certificate_key $key;
        location / {
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $$host;
            proxy_set_header X-Forwarded-For $$remote_addr;
            proxy_set_header X-Forwarded-Proto https;
        }
    }
}
""",
    config_as_root="user www-data;\n",
)

HAPROXY_HTTP = replace(
    HAPROXY,
    name="haproxy-http",
    column="haproxy",
    config=HAPROXY.config.replace("mode tcp", "mode http\n    http-reuse always\n    option forwardfor"),
)

SERVERS = {
    "tcp": (TERMPROXY, HITCH, NGINX_STREAM, HAPROXY),
    "http": (TERMPROXY_HTTP, NGINX_HTTP, HAPROXY_HTTP),
}

# One nginx answers for all of them, so quickly that it is never what is measured.
BACKEND = Server(
    name="backend",
    command="nginx -e $directory/backend.error -c $config",
    version="nginx -v",
    speaks_tls=False,
    config="""\
daemon off;
pid $directory/backend.pid;
error_log $directory/backend.error;
worker_processes 1;
events { worker_connections 32768; }
http {
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 10m;
    client_body_temp_path $directory/temporary-body;
    proxy_temp_path $directory/temporary-proxy;
    fastcgi_temp_path $directory/temporary-fastcgi;
    scgi_temp_path $directory/temporary-scgi;
    uwsgi_temp_path $directory/temporary-uwsgi;
    server {
        listen 127.0.0.1:$port backlog=4096;
        root $directory/www;
        location = /small { return 200 "hello, world\\n"; }
    }
}
""",
    config_as_root="user www-data;\n",
)
