-- Sets a tenant's record in one exchange. Run by `mesophyll migrate` as often as it is.
--
-- The caller supposes which row is to be replaced (`old_id`; none: NULL), and by how much that
-- changes the usage (`added`). If it is another one, nothing is changed, `is_set` is NULL, and that
-- one is answered. After a set that took more of the quota, the usage before it is answered too.
-- Answers nothing, and changes nothing, if the usage has to be counted first. Each statement in here
-- sees what was committed before it began, so what follows the lock sees what its last holder did.
CREATE OR REPLACE FUNCTION mesophyll_set(shard integer, epoch bigint, master uuid, lock bigint,
    kind text, owner text, k text, s text[], v jsonb, fresh_id text, now_at timestamptz,
    old_id text, old_xmin text, added bigint, max_records bigint, max_bytes bigint,
    patience text)
RETURNS TABLE (is_set boolean, had_records bigint, had_bytes bigint,
    row_id text, row_value text, row_updated_at timestamptz, row_xmin text)
LANGUAGE plpgsql AS $$
DECLARE had mesophyll_usage; new_records bigint; new_bytes bigint; BEGIN
    -- What goes together with others waits for no lock so long that they suffer.
    IF patience IS NOT NULL THEN PERFORM set_config('lock_timeout', patience, true); END IF;
    IF master IS NOT NULL THEN PERFORM mesophyll_fence(shard, epoch, master); END IF;
    PERFORM pg_advisory_xact_lock(lock);
    -- What takes no more of the quota is never refused: where there is no other row, this is all.
    IF added <= 0 THEN
        UPDATE tenant_kv t SET value = v, last_updated_at = now_at
            WHERE t.id = old_id AND t.xmin::text = old_xmin
                AND NOT EXISTS (SELECT FROM tenant_kv o
                    WHERE o.owner_type = kind AND o.owner_id = owner AND o.key = k
                        AND o.scopes @> s AND o.scopes <@ s AND o.id <> old_id);
        IF FOUND THEN
            IF added < 0 THEN
                UPDATE mesophyll_usage u SET bytes = greatest(0, u.bytes + added)
                    WHERE u.owner_type = kind AND u.owner_id = owner AND u.area = 'kv';
            END IF;
            is_set := true; row_xmin := mod(txid_current(), 4294967296)::text;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    SELECT t.id, t.xmin::text, t.last_updated_at INTO row_id, row_xmin, row_updated_at
        FROM tenant_kv t
        WHERE t.owner_type = kind AND t.owner_id = owner AND t.key = k
            AND t.scopes @> s AND t.scopes <@ s
        ORDER BY t.last_updated_at DESC NULLS LAST, t.id COLLATE "C" DESC LIMIT 1;
    -- Every change of a row gives it another xmin.
    IF (row_id, row_xmin) IS DISTINCT FROM (old_id, old_xmin) THEN
        SELECT t.value::text INTO row_value FROM tenant_kv t
            WHERE t.id = row_id AND t.xmin::text = row_xmin;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT * INTO had FROM mesophyll_usage u
        WHERE u.owner_type = kind AND u.owner_id = owner AND u.area = 'kv';
    IF NOT FOUND THEN RETURN; END IF;
    -- As `Usage::after_set` does.
    new_records := had.records + (old_id IS NULL)::integer;
    new_bytes := greatest(0, had.bytes + added);
    IF (old_id IS NULL AND new_records > max_records)
        OR (new_bytes > max_bytes AND new_bytes > had.bytes)
    THEN
        IF had.counted_at >= now() - interval '1 minute' THEN
            is_set := false; had_records := had.records; had_bytes := had.bytes;
            RETURN NEXT;
        END IF;
        RETURN;
    END IF;
    IF (new_records, new_bytes) <> (had.records, had.bytes) THEN
        UPDATE mesophyll_usage u SET records = new_records, bytes = new_bytes
            WHERE u.owner_type = kind AND u.owner_id = owner AND u.area = 'kv';
    END IF;
    IF old_id IS NULL THEN
        INSERT INTO tenant_kv
            (id, owner_type, owner_id, key, value, scopes, created_at, last_updated_at)
            VALUES (fresh_id, kind, owner, k, v, s, now_at, now_at);
    ELSE
        UPDATE tenant_kv t SET value = v, last_updated_at = now_at
            WHERE t.id = old_id AND t.xmin::text = old_xmin;
        -- Another program, which does not know our lock, was faster.
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the record was changed meanwhile' USING ERRCODE = '40001';
        END IF;
    END IF;
    is_set := true; row_xmin := mod(txid_current(), 4294967296)::text;
    had_records := had.records; had_bytes := had.bytes;
    RETURN NEXT;
END $$;
