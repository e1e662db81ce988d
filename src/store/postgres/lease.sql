-- What the masters of one database agree on: their leases, and who holds which shard.
--
-- Part of layout 2; run by `mesophyll migrate` as often as it is. All times are the server's.

CREATE TABLE IF NOT EXISTS mesophyll_cluster (name text);
INSERT INTO mesophyll_cluster SELECT NULL WHERE NOT EXISTS (SELECT FROM mesophyll_cluster);

-- A run of a master. Its state is `dead` once it has left, or once another has found its lease
-- over; until then it may renew the lease, however late.
CREATE TABLE IF NOT EXISTS mesophyll_master (
    master uuid PRIMARY KEY, name text NOT NULL, cluster text, api text NOT NULL,
    version text NOT NULL, weight integer NOT NULL, state text NOT NULL DEFAULT 'up',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(), expires_at timestamptz NOT NULL,
    CHECK (state IN ('up', 'draining', 'dead'))) WITH (fillfactor = 50);

-- The epoch grows with each change of the owner, and only then.
CREATE TABLE IF NOT EXISTS mesophyll_shard (
    shard integer PRIMARY KEY, epoch bigint NOT NULL DEFAULT 0, owner uuid,
    since timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 50);
INSERT INTO mesophyll_shard (shard) SELECT generate_series(0, 508) ON CONFLICT DO NOTHING;

-- Begins each transaction that writes a tenant's data. The shared lock makes a change of the owner
-- wait for those that have passed; each statement in here sees what was committed before it began,
-- so a write that had to wait for the lock sees the new owner.
CREATE OR REPLACE FUNCTION mesophyll_fence(of integer, at bigint, by uuid) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock_shared(1835365236, of);
    PERFORM FROM mesophyll_shard WHERE shard = of AND epoch = at AND owner = by;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'shard % is not held at epoch %', of, at USING ERRCODE = 'MSF01';
    END IF;
END $$;

-- Whether a master may get shards: it lives and does not stop (a weight of 0), and either does not
-- drain, or all others do, too.
CREATE OR REPLACE FUNCTION mesophyll_gets(asked uuid) RETURNS boolean LANGUAGE sql AS $$
    WITH getters AS (SELECT master, state FROM mesophyll_master
        WHERE weight > 0 AND state <> 'dead' AND expires_at > clock_timestamp())
    SELECT EXISTS (SELECT FROM getters WHERE master = asked
        AND (state = 'up' OR NOT EXISTS (SELECT FROM getters WHERE state = 'up')))
$$;

-- Takes what has no living owner, and answers the new epochs. Left out are shards whose lock is
-- busy: a write is under way. In the order of the owners, so that two masters that declare the same
-- ones dead do not wait for each other.
CREATE OR REPLACE FUNCTION mesophyll_take(by uuid, wanted integer[])
RETURNS TABLE (taken integer, at bigint) LANGUAGE plpgsql AS $$
DECLARE holder uuid; BEGIN
    -- What has no owner at all needs no look at one: all of a first start go at once. A row that
    -- has got an owner since the statement began is looked at again, and left alone.
    RETURN QUERY UPDATE mesophyll_shard s
        SET owner = by, epoch = s.epoch + 1, since = clock_timestamp()
        -- Of others no lock is taken: their takers would find it busy.
        WHERE (SELECT mesophyll_gets(by))
            AND CASE WHEN s.owner IS NULL AND s.shard = ANY (wanted)
                THEN pg_try_advisory_xact_lock(1835365236, s.shard) ELSE false END
        RETURNING s.shard, s.epoch;
    FOR taken IN SELECT s.shard FROM mesophyll_shard s
        WHERE s.shard = ANY (wanted) AND s.owner IS DISTINCT FROM by AND (SELECT mesophyll_gets(by))
        ORDER BY s.owner, s.shard
    LOOP
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(1835365236, taken);
        SELECT s.owner INTO holder FROM mesophyll_shard s WHERE s.shard = taken;
        -- Waits for a renewal that is being committed; one that comes later finds the word.
        UPDATE mesophyll_master m SET state = 'dead'
            WHERE m.master = holder AND m.state <> 'dead' AND m.expires_at <= clock_timestamp();
        CONTINUE WHEN EXISTS
            (SELECT FROM mesophyll_master m WHERE m.master = holder AND m.state <> 'dead');
        UPDATE mesophyll_shard s SET owner = by, epoch = s.epoch + 1, since = clock_timestamp()
            WHERE s.shard = taken RETURNING s.epoch INTO at;
        RETURN NEXT;
    END LOOP;
END $$;

-- Hands over what is held at these epochs, each to an heir that may get it, or to none (NULL).
-- Waits for writes that have passed the fence.
CREATE OR REPLACE FUNCTION mesophyll_give(by uuid, shards integer[], epochs bigint[], heirs uuid[])
RETURNS SETOF integer LANGUAGE plpgsql AS $$
DECLARE one record; BEGIN
    FOR one IN SELECT * FROM unnest(shards, epochs, heirs) AS x (shard, epoch, heir) ORDER BY shard
    LOOP
        PERFORM pg_advisory_xact_lock(1835365236, one.shard);
        UPDATE mesophyll_shard s SET owner = one.heir, epoch = s.epoch + 1, since = clock_timestamp()
            WHERE s.shard = one.shard AND s.epoch = one.epoch AND s.owner = by
                AND (one.heir IS NULL OR mesophyll_gets(one.heir));
        IF FOUND THEN RETURN NEXT one.shard; END IF;
    END LOOP;
END $$;

-- The shard of a row's owner; NULL: a row of another program.
CREATE OR REPLACE FUNCTION mesophyll_shard_of(owner text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN owner ~ '^[0-9]{1,20}$' THEN mod(div(owner::numeric, 4194304), 509)::integer END
$$;
CREATE INDEX IF NOT EXISTS tenant_state_shard ON tenant_state (mesophyll_shard_of(owner_id));
