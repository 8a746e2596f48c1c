"""Own the tables of what each client has open (worker/_client_table.pyx): one for each generation."""

from __future__ import annotations

from termproxy.config.schema import Limits
from termproxy.worker._client_table import Clients, ClientTable, new_secret


class ClientKeeper:
    def __init__(self) -> None:
        self._secret = new_secret()
        self._tables: dict[int, ClientTable] = {}

    def begin(self, number: int, limits: Limits, seats: int) -> None:
        """Make a table of so many rows, before a generation's first worker.  OSError when there is no
        memory for it.
        """
        self._tables[number] = ClientTable(seats, limits.connections)

    def clients_of(self, number: int, seat: int) -> Clients:
        """As a worker of this generation uses them, and those of older ones that are not over."""
        before = [table for other, table in self._tables.items() if other < number]
        return Clients(self._tables[number], seat, before, self._secret)

    def worker_has_gone(self, number: int, seat: int) -> None:
        """It has no connection any more."""
        self._tables[number].clear_row(seat)

    def end(self, number: int) -> None:
        """A generation's last worker has gone, or it has never begun."""
        table = self._tables.pop(number, None)
        if table is not None:
            table.close()
