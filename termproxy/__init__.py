"""termproxy terminates TLS in front of servers that speak plaintext.

The words this code uses, one for each thing:

client      who connects to us with TLS              backend     who we forward plaintext to
frontend    listeners, certificates and a cluster    cluster     a named set of backends
listener    a bound, listening socket                connection  one client, accept to close
master      binds, forks, supervises                 worker      terminates TLS and forwards
generation  the workers of one configuration         slot        a worker's place, and its listeners
drain       stop accepting, finish what is open      pump        copies one direction of a relay
"""

__version__ = "0.1.0"
