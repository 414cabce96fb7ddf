-- Wrong access tokens by the network that they came from.
CREATE TABLE failures (
    network TEXT NOT NULL,
    paid_until FLOAT NOT NULL,
    PRIMARY KEY (network)
);
CREATE INDEX failures_by_time ON failures (paid_until);
