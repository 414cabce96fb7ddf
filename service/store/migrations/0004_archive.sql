-- What a conversation is called: its first words, until somebody calls it something else.
ALTER TABLE conversations ADD COLUMN title TEXT NOT NULL DEFAULT '';
UPDATE conversations SET title = coalesce(
    (SELECT substr(replace(trim(content), char(10), ' '), 1, 80) FROM messages
     WHERE conversation_key = conversations.key AND role = 'user' ORDER BY turn LIMIT 1), '');

-- Somebody on another device wants the answer that is being written to end.
ALTER TABLE messages ADD COLUMN stop_wanted INTEGER NOT NULL DEFAULT 0;

CREATE INDEX conversations_by_age ON conversations (updated_at);

-- The words of all ended messages. Whose they are is indexed with them, so that a search never
-- walks over other principals' words.
CREATE VIRTUAL TABLE messages_text USING fts5 (principal, content, tokenize = 'unicode61');
INSERT INTO messages_text (rowid, principal, content)
    SELECT messages.key, conversations.principal_id, messages.content
    FROM messages JOIN conversations ON conversations.key = messages.conversation_key
    WHERE messages.state <> 'writing' AND messages.content <> '';

CREATE TRIGGER messages_text_insert AFTER INSERT ON messages
WHEN new.state <> 'writing' AND new.content <> ''
BEGIN
    INSERT INTO messages_text (rowid, principal, content)
        SELECT new.key, principal_id, new.content FROM conversations
        WHERE key = new.conversation_key;
END;

CREATE TRIGGER messages_text_update AFTER UPDATE OF content, state ON messages
WHEN new.state <> 'writing'
BEGIN
    DELETE FROM messages_text WHERE rowid = old.key;
    INSERT INTO messages_text (rowid, principal, content)
        SELECT new.key, principal_id, new.content FROM conversations
        WHERE key = new.conversation_key AND new.content <> '';
END;

CREATE TRIGGER messages_text_delete AFTER DELETE ON messages
BEGIN
    DELETE FROM messages_text WHERE rowid = old.key;
END;
