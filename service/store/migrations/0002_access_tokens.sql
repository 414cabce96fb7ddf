-- What is kept of access tokens: never a secret, only its SHA-256. A revoked one stays in the list.
CREATE TABLE access_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    digest TEXT NOT NULL,
    scopes TEXT NOT NULL,
    issued_at FLOAT NOT NULL,
    expires_at FLOAT,
    last_used_at FLOAT,
    revoked_at FLOAT,
    UNIQUE (digest)
);
