"""What outlives a process: `state.db` and the functions over its tables, and the files of large outputs."""

from pathlib import Path

from mcp_ssh.blobs.blobs import Blob, Blobs, BlobWriter
from mcp_ssh.store.connections import Account, Connections, SavedConnection
from mcp_ssh.store.database import Database
from mcp_ssh.store.history import History, HistoryRow, Kept, arguments_text, redact
from mcp_ssh.store.history_chain import Chain, Verdict
from mcp_ssh.store.redaction import hide_unknown
from mcp_ssh.store.sealing import Seal
from mcp_ssh.store.sqlite.database import SQLiteDatabase, saved_names
from mcp_ssh.store.tasks import TaskRow, Tasks
from mcp_ssh.store.tokens import TokenInfo, Tokens

__all__ = [
    "Account",
    "Blob",
    "BlobWriter",
    "Blobs",
    "Connections",
    "History",
    "HistoryRow",
    "Kept",
    "SavedConnection",
    "Store",
    "TaskRow",
    "Tasks",
    "TokenInfo",
    "Tokens",
    "Verdict",
    "arguments_text",
    "hide_unknown",
    "redact",
    "saved_names",
]


class Store:
    """The database of a state folder, by table: `tokens`, `history`, `connections`, `tasks`."""

    def __init__(self, folder: Path, database: Database, kept: Kept | None = None) -> None:
        self._database = database
        seal = Seal(folder, database)
        self.tokens = Tokens(database)
        self.history = History(database, Chain(folder, database, seal), kept)
        self.tasks = Tasks(database)
        self.connections = Connections(database, seal)

    @classmethod
    async def open(cls, folder: Path, kept: Kept | None = None) -> "Store":
        """Open `state.db` in a folder, made 0700 where it is missing. Any number of processes may do so.

        Raises:
            InvalidInput: The folder cannot be used or is not private.
            Unsupported: A newer version of this program wrote the database.
            Internal: It is damaged.
            TimedOut: Another process kept it locked.
        """
        return cls(folder, await SQLiteDatabase.open(folder), kept)

    async def close(self) -> None:
        """Write the history that still waits, and close."""
        await self._database.close()
