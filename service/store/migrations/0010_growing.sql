-- The few answers that are being written, to be found without a walk over all of them.
CREATE INDEX messages_being_written ON messages (updated_at) WHERE state = 'writing';
