-- What an answer is counted as when its worker is gone.
ALTER TABLE answers ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE answers ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;
-- Of those that were running before, nobody knows it.
UPDATE answers SET ended_at = leased_until WHERE ended_at IS NULL;
