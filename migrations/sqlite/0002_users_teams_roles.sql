-- Expands 0001: what users and teams are, their limits, second secrets of rotated keys, who changed what. Nothing that a
-- node of the version before reads is changed or removed.

CREATE TABLE roles (
    name        TEXT PRIMARY KEY NOT NULL,
    description TEXT NOT NULL
) STRICT;
INSERT INTO roles (name, description) VALUES
    ('root_admin', 'everything, roles of other admins included'),
    ('gateway_admin', 'users, teams, keys, limits, prices and usage; nobody''s role'),
    ('gateway_user', 'no admin route');

ALTER TABLE users ADD COLUMN email TEXT;
ALTER TABLE users ADD COLUMN role TEXT REFERENCES roles (name);
ALTER TABLE users ADD COLUMN team_id BLOB REFERENCES teams (id);
ALTER TABLE users ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE users ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX users_email ON users (email);
CREATE INDEX users_created ON users (created_at, id);

ALTER TABLE teams ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE teams ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX teams_created ON teams (created_at, id);

-- While a rotation's overlap lasts, a key has two secrets.
ALTER TABLE api_keys ADD COLUMN previous_hash BLOB;
ALTER TABLE api_keys ADD COLUMN previous_until INTEGER;
CREATE UNIQUE INDEX api_keys_previous ON api_keys (previous_hash);
CREATE INDEX api_keys_created ON api_keys (created_at, id);
CREATE INDEX api_keys_user ON api_keys (user_id);
CREATE INDEX api_keys_team ON api_keys (team_id);

-- Limits of users and teams; those of a key are in token_metadata. Their version is the user's or the team's.
CREATE TABLE tenant_limits (
    scope_kind      TEXT NOT NULL CHECK (scope_kind IN ('user', 'team')),
    scope_id        BLOB NOT NULL CHECK (length(scope_id) = 16),
    quota_limit     INTEGER NOT NULL DEFAULT 0 CHECK (quota_limit >= 0),
    rps             INTEGER NOT NULL DEFAULT 0 CHECK (rps >= 0),
    rpm             INTEGER NOT NULL DEFAULT 0 CHECK (rpm >= 0 AND (rps = 0 OR rpm = 0)),
    burst_requests  INTEGER NOT NULL DEFAULT 0 CHECK (burst_requests >= 0),
    tpm             INTEGER NOT NULL DEFAULT 0 CHECK (tpm >= 0),
    burst_tokens    INTEGER NOT NULL DEFAULT 0 CHECK (burst_tokens >= 0),
    max_concurrent  INTEGER NOT NULL DEFAULT 0 CHECK (max_concurrent >= 0),
    budget_nano_usd INTEGER NOT NULL DEFAULT 0 CHECK (budget_nano_usd >= 0),
    PRIMARY KEY (scope_kind, scope_id)
) STRICT;

-- `revoke` rows name the secret; one that is due later ends an overlap.
ALTER TABLE outbox ADD COLUMN key_hash BLOB;
ALTER TABLE outbox ADD COLUMN due_at INTEGER NOT NULL DEFAULT 0;

-- Written in the transaction of the change itself.
CREATE TABLE audit_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_id   TEXT NOT NULL,
    target_name TEXT NOT NULL,
    detail      TEXT NOT NULL
) STRICT;

-- What a POST with an Idempotency-Key gave, without any secret.
CREATE TABLE idempotency (
    key_hash     BLOB PRIMARY KEY NOT NULL,
    request_hash BLOB NOT NULL,
    status       INTEGER NOT NULL,
    answer       TEXT NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX idempotency_created ON idempotency (created_at);

-- A key with all that binds it, as lookups, the snapshot and the admin routes read it.
CREATE VIEW callers AS
SELECT k.id, k.key_hash, k.previous_hash, k.previous_until, k.key_prefix, k.name, k.scopes, k.models, k.created_at,
       m.updated_at, k.expires_at, k.revoked_at, k.user_id, k.team_id AS own_team_id,
       coalesce(k.team_id, u.team_id) AS team_id, m.tier, m.priority, m.priority_ceiling, m.version,
       m.quota_limit, m.rps, m.rpm, m.burst_requests, m.tpm, m.burst_tokens, m.max_concurrent, m.budget_nano_usd,
       u.name AS user_name, u.role AS user_role, u.version AS user_version,
       ul.quota_limit AS user_quota_limit, ul.rps AS user_rps, ul.rpm AS user_rpm,
       ul.burst_requests AS user_burst_requests, ul.tpm AS user_tpm, ul.burst_tokens AS user_burst_tokens,
       ul.max_concurrent AS user_max_concurrent, ul.budget_nano_usd AS user_budget_nano_usd,
       t.name AS team_name, t.version AS team_version,
       tl.quota_limit AS team_quota_limit, tl.rps AS team_rps, tl.rpm AS team_rpm,
       tl.burst_requests AS team_burst_requests, tl.tpm AS team_tpm, tl.burst_tokens AS team_burst_tokens,
       tl.max_concurrent AS team_max_concurrent, tl.budget_nano_usd AS team_budget_nano_usd,
       coalesce(u.disabled_at, t.disabled_at) AS disabled_at
FROM api_keys AS k
JOIN token_metadata AS m ON m.token_hash = k.key_hash
LEFT JOIN users AS u ON u.id = k.user_id
LEFT JOIN teams AS t ON t.id = coalesce(k.team_id, u.team_id)
LEFT JOIN tenant_limits AS ul ON ul.scope_kind = 'user' AND ul.scope_id = u.id
LEFT JOIN tenant_limits AS tl ON tl.scope_kind = 'team' AND tl.scope_id = t.id;
