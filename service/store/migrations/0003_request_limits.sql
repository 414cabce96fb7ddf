ALTER TABLE access_tokens ADD COLUMN requests_per_minute INTEGER;

-- The requests of the last minute, of principals whose requests are limited.
CREATE TABLE admissions (
    key INTEGER NOT NULL PRIMARY KEY,
    principal_id TEXT NOT NULL,
    at FLOAT NOT NULL
);

CREATE INDEX admissions_by_time ON admissions (principal_id, at);
