-- The store: what one commit makes true at once (EO-2). Money is exact decimal text in USD; times are microseconds since
-- 1970-01-01 UTC.

-- Where reading goes on. Advanced by compare-and-swap only (EO-1).
CREATE TABLE cursor (
    topic        TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    next_offset  INTEGER NOT NULL,
    watermark_us BIGINT,
    PRIMARY KEY (topic, partition)
);

-- One row a commit.
CREATE TABLE epoch (
    epoch           INTEGER PRIMARY KEY,
    committed_at_us BIGINT NOT NULL,
    clock_us        BIGINT NOT NULL,
    price_revision  TEXT   NOT NULL
);

-- What became of each range of offsets: events = ledger_rows + duplicates + quarantined (EO-3).
CREATE TABLE consumed (
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    from_offset INTEGER NOT NULL,
    to_offset   INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    records     INTEGER NOT NULL,
    events      INTEGER NOT NULL,
    ledger_rows INTEGER NOT NULL,
    duplicates  INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, from_offset)
);

-- The manifest: the files that belong to a dataset. A file that is not listed here is not part of the ledger.
CREATE TABLE file (
    path        TEXT PRIMARY KEY,
    dataset     TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    rows        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    sha256      TEXT    NOT NULL,
    cost_usd    TEXT    NOT NULL,
    min_time_us BIGINT  NOT NULL,
    max_time_us BIGINT  NOT NULL,
    -- For ledger files: the epoch whose rollup file holds their hourly totals.
    rolled_up_in INTEGER
);
CREATE INDEX file_by_dataset ON file (dataset, epoch);
CREATE INDEX file_to_roll_up ON file (epoch) WHERE dataset = 'ledger' AND rolled_up_in IS NULL;

-- Budgets that have counters, with what their counters were counted for.
CREATE TABLE budget (
    budget     TEXT PRIMARY KEY,
    definition TEXT NOT NULL
);

CREATE TABLE budget_spend (
    budget          TEXT    NOT NULL,
    period_start_us BIGINT  NOT NULL,
    period          TEXT    NOT NULL,
    topic           TEXT    NOT NULL,
    partition       INTEGER NOT NULL,
    spent_usd       TEXT    NOT NULL,
    PRIMARY KEY (budget, period_start_us, topic, partition)
);

-- At most one alert a budget, period and threshold: the id is made of them (BUDGET-1).
CREATE TABLE alert (
    alert_id  TEXT PRIMARY KEY,
    raised_us BIGINT NOT NULL,
    epoch     INTEGER,
    body      TEXT   NOT NULL
);

-- The latest command of each scope, which alone describes its state (BUDGET-2).
CREATE TABLE throttle (
    scope    TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    body     TEXT    NOT NULL
);

-- Messages that must leave; written in the commit, sent after it, at least once, with ids that let a reader drop a repeat.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY,
    message_id   TEXT   NOT NULL UNIQUE,
    topic        TEXT   NOT NULL,
    message_key  BLOB,
    value        BLOB   NOT NULL,
    headers      TEXT   NOT NULL,
    created_us   BIGINT NOT NULL,
    published_us BIGINT
);
CREATE INDEX outbox_to_publish ON outbox (topic, id) WHERE published_us IS NULL;
