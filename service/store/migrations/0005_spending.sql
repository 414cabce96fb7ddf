-- What a token may spend besides requests, as JSON; what is not in it is not limited.
ALTER TABLE access_tokens ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';

-- Answers of principals whose tokens or streams are limited: while they run, with the tokens that
-- are set aside for them, and for a minute more with those that they took. A running one whose
-- lease has passed belonged to a worker that is gone.
CREATE TABLE answers (
    key INTEGER NOT NULL PRIMARY KEY,
    principal_id TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    began_at FLOAT NOT NULL,
    ended_at FLOAT,
    leased_until FLOAT NOT NULL
);

CREATE INDEX answers_by_principal ON answers (principal_id);

-- What was answered, by day (UTC). Quotas are judged by the same rows that reports are made of.
CREATE TABLE usage (
    principal_id TEXT NOT NULL,
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    answers INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (principal_id, day, model)
);

-- Who did what to whom: administration, never contents.
CREATE TABLE audit (
    key INTEGER NOT NULL PRIMARY KEY,
    at FLOAT NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    about TEXT NOT NULL
);
