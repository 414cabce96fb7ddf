-- The model that a principal has chosen for itself: for one conversation, or ('') for all of them.
CREATE TABLE preferences (
    principal_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    model TEXT NOT NULL,
    PRIMARY KEY (principal_id, conversation_id)
);
