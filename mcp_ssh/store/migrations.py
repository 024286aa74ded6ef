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
)
"""Migration N (counted from 1) brings a database from `PRAGMA user_version` N-1 to N."""
