-- Whose conversation it is belongs to its name: another principal's is as good as none.
CREATE TABLE conversations (
    key INTEGER NOT NULL PRIMARY KEY,
    principal_id TEXT NOT NULL,
    id TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    updated_at FLOAT NOT NULL,
    UNIQUE (principal_id, id)
);

CREATE INDEX conversations_by_recency ON conversations (principal_id, updated_at);

-- A turn is one exchange: what was said, and the answer, whose row grows while it is written.
CREATE TABLE messages (
    key INTEGER NOT NULL PRIMARY KEY,
    conversation_key INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    updated_at FLOAT NOT NULL,
    UNIQUE (conversation_key, turn, role),
    FOREIGN KEY (conversation_key) REFERENCES conversations (key) ON DELETE CASCADE
);
