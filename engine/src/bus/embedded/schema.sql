-- The embedded log. Records that were appended together to one partition share a row: a *chunk*, packed as `chunk.rs`
-- describes. A row per record would cost ten times as much to read.
--
-- Offsets are dense: the chunks of a partition chain from `first_offset` to `next_offset` without gap. The key of a chunk is
-- the offset after its last record, so that "where does offset 4711 live" is one step down the index.
CREATE TABLE topics (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    partitions INTEGER NOT NULL CHECK (partitions > 0)
) STRICT;

CREATE TABLE partitions (
    id           INTEGER PRIMARY KEY,
    topic_id     INTEGER NOT NULL REFERENCES topics (id),
    partition    INTEGER NOT NULL,
    first_offset INTEGER NOT NULL DEFAULT 0,
    next_offset  INTEGER NOT NULL DEFAULT 0 CHECK (next_offset >= first_offset),
    UNIQUE (topic_id, partition)
) STRICT;

CREATE TABLE chunks (
    id           INTEGER PRIMARY KEY,
    partition_id INTEGER NOT NULL REFERENCES partitions (id),
    from_offset  INTEGER NOT NULL,
    to_offset    INTEGER NOT NULL CHECK (to_offset > from_offset),
    timestamp_ms INTEGER NOT NULL,
    body         BLOB    NOT NULL,
    UNIQUE (partition_id, to_offset)
) STRICT;
