-- Every admission adds up one principal's answers and drops those that have passed: neither may
-- take longer because there are many.
DROP INDEX answers_by_principal;
CREATE INDEX answers_by_end ON answers (principal_id, ended_at, tokens);
