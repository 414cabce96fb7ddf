-- Responses that are written while nobody waits: how far each is, and that somebody still writes it.
ALTER TABLE responses ADD COLUMN state TEXT NOT NULL DEFAULT 'ended';
ALTER TABLE responses ADD COLUMN updated_at FLOAT NOT NULL DEFAULT 0;

-- What was told of a response while it grew, so that a stream of it can be gone on with: compressed
-- JSON lists, each from the event with its first number on.
CREATE TABLE response_events (
    key INTEGER NOT NULL PRIMARY KEY,
    response_key INTEGER NOT NULL,
    first_number INTEGER NOT NULL,
    events BLOB NOT NULL,
    UNIQUE (response_key, first_number),
    FOREIGN KEY (response_key) REFERENCES responses (key) ON DELETE CASCADE
);

-- What was said in more than text: calls, their results, thoughts, as JSON in OpenAI's words.
ALTER TABLE messages ADD COLUMN items TEXT;
ALTER TABLE conversations ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
