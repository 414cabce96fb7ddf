-- Answers that are gone on from by their ids: what was new in the request, and the reply, as JSON.
CREATE TABLE responses (
    key INTEGER NOT NULL PRIMARY KEY,
    principal_id TEXT NOT NULL,
    id TEXT NOT NULL,
    previous_id TEXT,
    created_at FLOAT NOT NULL,
    input TEXT NOT NULL,
    reply TEXT NOT NULL,
    UNIQUE (principal_id, id)
);

CREATE INDEX responses_by_age ON responses (created_at);
