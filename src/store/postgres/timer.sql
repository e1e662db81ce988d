-- Timers of tenants: events that are due at a time, once or again and again.
--
-- Came with layout 3; run by `mesophyll migrate` as often as it is.

CREATE TABLE IF NOT EXISTS mesophyll_timer (
    owner_type text NOT NULL, owner_id text NOT NULL, id text NOT NULL, name text NOT NULL,
    due timestamptz NOT NULL, every text, data jsonb NOT NULL, bytes bigint NOT NULL,
    PRIMARY KEY (owner_type, owner_id, id));
CREATE INDEX IF NOT EXISTS mesophyll_timer_due
    ON mesophyll_timer (due, owner_id, owner_type, id);
