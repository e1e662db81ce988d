-- Changes of the shop's entries, each noted in the transaction that made it, for all masters.
--
-- Part of layout 2; run by `mesophyll migrate` as often as it is.

CREATE TABLE IF NOT EXISTS mesophyll_shop_log (
    seq bigint GENERATED ALWAYS AS IDENTITY, xid bigint NOT NULL DEFAULT txid_current(),
    scope text NOT NULL, key text NOT NULL, version integer NOT NULL,
    owner_type text NOT NULL, owner_id text NOT NULL, change text NOT NULL, review_state text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (xid, seq));
CREATE INDEX IF NOT EXISTS mesophyll_shop_log_at ON mesophyll_shop_log (at);
