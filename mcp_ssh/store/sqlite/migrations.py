"""The shape of `state.db`: numbered steps, each applied once and never edited afterwards."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE tokens (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
            hash TEXT NOT NULL UNIQUE,
            created_at TEXT NOT NULL,
            last_used_at TEXT
        )
        """,
        # AUTOINCREMENT: a number is never given twice, so rows trimmed at the old end leave the order intact.
        """
        CREATE TABLE history (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL,
            at TEXT NOT NULL,
            caller TEXT NOT NULL,
            door TEXT NOT NULL,
            tool TEXT NOT NULL,
            target TEXT,
            arguments TEXT NOT NULL,
            outcome TEXT NOT NULL,
            duration_ms REAL NOT NULL,
            detail TEXT
        )
        """,
        "CREATE INDEX history_at ON history (at)",
        "CREATE INDEX history_caller ON history (caller, seq)",
        "CREATE INDEX history_tool ON history (tool, seq)",
    ),
    (
        # Which key the secrets are sealed with, and where it is kept; never the key itself.
        """
        CREATE TABLE sealing_key (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            place TEXT NOT NULL CHECK (place IN ('keyring', 'file')),
            name TEXT NOT NULL,
            mark TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE connections (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            uuid TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL UNIQUE,
            category TEXT,
            host TEXT NOT NULL,
            port INTEGER,
            username TEXT NOT NULL,
            key_path TEXT,
            use_agent INTEGER NOT NULL,
            secrets TEXT NOT NULL,
            sealed BLOB,
            owner TEXT NOT NULL,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            last_used_at TEXT
        )
        """,
    ),
    (
        # Patterns of the machines a token is for, as a JSON list.
        "ALTER TABLE tokens ADD COLUMN hosts TEXT",
        # The seal of each call, which covers the one before. Rows from before have none.
        "ALTER TABLE history ADD COLUMN mac TEXT",
        """
        CREATE TABLE history_start (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            seq INTEGER NOT NULL,
            mac TEXT NOT NULL,
            proof TEXT NOT NULL
        )
        """,
    ),
    (
        # Background tasks.
        """
        CREATE TABLE tasks (
            cookie TEXT PRIMARY KEY,
            task_id TEXT NOT NULL,
            owner TEXT NOT NULL,
            target TEXT NOT NULL,
            account TEXT,
            method TEXT,
            created_at TEXT NOT NULL
        )
        """,
        "CREATE INDEX tasks_name ON tasks (target, task_id)",
    ),
    (
        # The name of a saved connection is its owner's: another caller may use the same name for another machine.
        """
        CREATE TABLE named_connections (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            uuid TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            category TEXT,
            host TEXT NOT NULL,
            port INTEGER,
            username TEXT NOT NULL,
            key_path TEXT,
            use_agent INTEGER NOT NULL,
            secrets TEXT NOT NULL,
            sealed BLOB,
            owner TEXT NOT NULL,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            last_used_at TEXT,
            UNIQUE (owner, name)
        )
        """,
        # The server's owner is one caller, at the command line and over stdio.
        """
        INSERT INTO named_connections (id, uuid, name, category, host, port, username, key_path, use_agent, secrets,
            sealed, owner, created_at, updated_at, last_used_at)
        SELECT id, uuid, name, category, host, port, username, key_path, use_agent, secrets,
            sealed, CASE owner WHEN 'cli' THEN 'stdio' ELSE owner END, created_at, updated_at, last_used_at
        FROM connections
        """,
        # A number is never given twice, also where the connection that had the highest one is gone.
        "DELETE FROM sqlite_sequence WHERE name = 'named_connections'",
        """
        INSERT INTO sqlite_sequence (name, seq)
        SELECT 'named_connections', seq FROM sqlite_sequence WHERE name = 'connections'
        """,
        "DROP TABLE connections",
        "ALTER TABLE named_connections RENAME TO connections",
    ),
)
"""Migration N (counted from 1) brings a database from `PRAGMA user_version` N-1 to N."""
