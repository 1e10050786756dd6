-- Identity (users, teams, keys and their limits) and usage rows. Times are microseconds of the wall clock since the
-- Unix epoch. A limit of 0 is no limit, a burst of 0 is its default.

CREATE TABLE users (
    id          BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    name        TEXT NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT;

CREATE TABLE teams (
    id          BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    name        TEXT NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT;

CREATE TABLE api_keys (
    id         BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    key_hash   BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    key_prefix TEXT NOT NULL,
    name       TEXT NOT NULL,
    user_id    BLOB REFERENCES users (id),
    team_id    BLOB REFERENCES teams (id),
    scopes     TEXT NOT NULL DEFAULT '[]',
    models     TEXT NOT NULL DEFAULT '[]',
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
-- A name can be given again once its key is revoked.
CREATE UNIQUE INDEX api_keys_name ON api_keys (name) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_prefix ON api_keys (key_prefix);

CREATE TABLE token_metadata (
    token_hash       BLOB PRIMARY KEY NOT NULL REFERENCES api_keys (key_hash),
    tier             TEXT NOT NULL CHECK (tier IN ('internal', 'partner', 'standard', 'external')),
    priority         INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 9),
    priority_ceiling INTEGER NOT NULL CHECK (priority_ceiling BETWEEN 0 AND priority),
    quota_limit      INTEGER NOT NULL DEFAULT 0 CHECK (quota_limit >= 0),
    current_usage    INTEGER NOT NULL DEFAULT 0,
    reset_at         INTEGER,
    rps              INTEGER NOT NULL DEFAULT 0 CHECK (rps >= 0),
    rpm              INTEGER NOT NULL DEFAULT 0 CHECK (rpm >= 0 AND (rps = 0 OR rpm = 0)),
    burst_requests   INTEGER NOT NULL DEFAULT 0 CHECK (burst_requests >= 0),
    tpm              INTEGER NOT NULL DEFAULT 0 CHECK (tpm >= 0),
    burst_tokens     INTEGER NOT NULL DEFAULT 0 CHECK (burst_tokens >= 0),
    max_concurrent   INTEGER NOT NULL DEFAULT 0 CHECK (max_concurrent >= 0),
    budget_nano_usd  INTEGER NOT NULL DEFAULT 0 CHECK (budget_nano_usd >= 0),
    version          INTEGER NOT NULL DEFAULT 1,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX token_metadata_tier ON token_metadata (tier);
CREATE INDEX token_metadata_priority ON token_metadata (priority);

-- A key with its limits, as lookups and the admin routes read it. `place` is the order of making.
CREATE VIEW keys_with_limits AS
SELECT k.rowid AS place, k.id, k.key_hash, k.key_prefix, k.name, k.user_id, k.team_id, k.scopes, k.models,
       k.created_at, k.expires_at, k.revoked_at, m.tier, m.priority, m.priority_ceiling, m.quota_limit, m.rps, m.rpm,
       m.burst_requests, m.tpm, m.burst_tokens, m.max_concurrent, m.version
FROM api_keys AS k
JOIN token_metadata AS m ON m.token_hash = k.key_hash;

-- What the ledger is still to hear of; written in the transaction of the change itself.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,
    scope_kind TEXT NOT NULL CHECK (scope_kind IN ('key', 'user', 'team')),
    scope_id   BLOB NOT NULL CHECK (length(scope_id) = 16),
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE prices (
    provider                  TEXT NOT NULL,
    model                     TEXT NOT NULL,
    valid_from                INTEGER NOT NULL,
    prompt_nano_usd_per_1k    INTEGER NOT NULL CHECK (prompt_nano_usd_per_1k >= 0),
    completion_nano_usd_per_1k INTEGER NOT NULL CHECK (completion_nano_usd_per_1k >= 0),
    PRIMARY KEY (provider, model, valid_from)
) STRICT;

-- One row per upstream call.
CREATE TABLE usage_entries (
    request_id        TEXT PRIMARY KEY NOT NULL,
    status            TEXT NOT NULL CHECK (status IN ('ok', 'cut', 'lost')),
    incarnation       INTEGER NOT NULL,
    key_id            BLOB NOT NULL CHECK (length(key_id) = 16),
    user_id           BLOB,
    team_id           BLOB,
    pool              TEXT NOT NULL,
    model             TEXT NOT NULL,
    provider          TEXT NOT NULL,
    priority          INTEGER NOT NULL,
    reserved_tokens   INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    charged_tokens    INTEGER NOT NULL,
    cost_nano_usd     INTEGER,
    http_status       INTEGER NOT NULL,
    streamed          INTEGER NOT NULL,
    latency_us        INTEGER NOT NULL,
    queue_wait_us     INTEGER NOT NULL,
    started_at        INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_entries_started ON usage_entries (started_at, request_id);
CREATE INDEX usage_entries_key ON usage_entries (key_id, started_at);
