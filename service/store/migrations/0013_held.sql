-- Which answer a conversation waits for, and until when somebody has said that it is being written.
ALTER TABLE conversations ADD COLUMN held_by TEXT;
ALTER TABLE conversations ADD COLUMN held_until FLOAT NOT NULL DEFAULT 0;
