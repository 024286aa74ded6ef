"""What outlives a process: `state.db` and the functions over its tables, and the files of large outputs."""

from pathlib import Path

from mcp_ssh.blobs.blobs import Blob, Blobs, BlobWriter
from mcp_ssh.store.connections import Connections, ConnectionTarget, SavedConnection
from mcp_ssh.store.database import Database
from mcp_ssh.store.history import History, HistoryRow, RetentionPolicy, arguments_text, redact
from mcp_ssh.store.history_chain import ChainCheck, HashChain
from mcp_ssh.store.redaction import hide_unknown
from mcp_ssh.store.sealing import SecretBox
from mcp_ssh.store.sqlite.database import SQLiteDatabase, saved_names
from mcp_ssh.store.tasks import TaskRow, TaskTable
from mcp_ssh.store.tokens import TokenInfo, Tokens

__all__ = [
    "Blob",
    "BlobWriter",
    "Blobs",
    "ChainCheck",
    "ConnectionTarget",
    "Connections",
    "History",
    "HistoryRow",
    "RetentionPolicy",
    "SavedConnection",
    "Store",
    "TaskRow",
    "TaskTable",
    "TokenInfo",
    "Tokens",
    "arguments_text",
    "hide_unknown",
    "redact",
    "saved_names",
]


class Store:
    """The database of a state folder, by table: `tokens`, `history`, `connections`, `tasks`."""

    def __init__(self, folder: Path, database: Database, kept: RetentionPolicy | None = None) -> None:
        self._database = database
        seal = SecretBox(folder, database)
        self.tokens = Tokens(database)
        self.history = History(database, HashChain(folder, database, seal), kept)
        self.tasks = TaskTable(database)
        self.connections = Connections(database, seal)

    @classmethod
    async def open(cls, folder: Path, kept: RetentionPolicy | None = None) -> "Store":
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
