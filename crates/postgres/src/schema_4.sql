-- Locks: leases with a time to live, and a queue. All of it may be forgotten in a crash of the server, and is then empty:
-- so none of it goes into the log, no step waits for the disk, and whoever finds no epoch begins a new one, which the
-- document store mints. Times are those of the server's clock, which alone decides expiry.
--
-- Each function below is one step, and one transaction. It takes an advisory lock on the context first, which ends with
-- the transaction; only then it looks, each statement with a snapshot of its own (read committed, and nothing else). So
-- the steps of one context are made one after the other, and those of two contexts do not wait for each other.

-- The counters of fencing tokens, and places in the queue. Never taken back.
CREATE UNLOGGED SEQUENCE {schema}.lock_numbers;

-- The epoch of each context's tokens. It belongs to one run of the server and to this very table: what was restored
-- from a dump has another number, and begins anew.
CREATE UNLOGGED TABLE {schema}.lock_contexts (
    name    text COLLATE "C" PRIMARY KEY,
    epoch   bigint NOT NULL,
    run     timestamptz NOT NULL,
    made_in oid NOT NULL
);

-- Who holds what: a row for each claim of each lease, with all that is known of the lease. A path is empty for the whole
-- context. The first row of a path (slot 0) stays when its lease ends, without one: acquire and release then change one
-- row in place, where the page has room for that, and leave nothing for the vacuum.
CREATE UNLOGGED TABLE {schema}.lock_claims (
    context    text COLLATE "C" NOT NULL,
    path       text COLLATE "C" NOT NULL,
    slot       integer NOT NULL,
    lease      bytea,               -- null: free
    exclusive  boolean NOT NULL,
    epoch      bigint NOT NULL,     -- the token's; of a free row, that of the context while `run` and `made_in` are
    counter    bigint NOT NULL,
    run        timestamptz NOT NULL,
    made_in    oid NOT NULL,
    since      timestamptz NOT NULL,
    ends       timestamptz NOT NULL,
    home       text COLLATE "C" NOT NULL,   -- its process; one that begins with `p` does not listen
    agent      text COLLATE "C" NOT NULL,
    holder     bytea NOT NULL,
    reason     bytea,
    paths      text[] COLLATE "C",          -- all that its lease claims; null where that is this path alone
    exclusives boolean[],
    PRIMARY KEY (context, path, slot)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

-- Who waits, in the order of `place`. Requests that are to take the place of a lease of their own come before all
-- others: their places are below zero.
CREATE UNLOGGED TABLE {schema}.lock_waiters (
    context    text COLLATE "C" NOT NULL,
    place      bigint NOT NULL,
    lease      bytea NOT NULL,
    paths      text[] COLLATE "C" NOT NULL,
    exclusives boolean[] NOT NULL,
    ttl_us     bigint NOT NULL,
    since      timestamptz NOT NULL,
    ends       timestamptz NOT NULL,
    home       text COLLATE "C" NOT NULL,
    agent      text COLLATE "C" NOT NULL,
    holder     bytea NOT NULL,
    reason     bytea,
    keeps      bytea[] NOT NULL,
    replaces   bytea,
    PRIMARY KEY (context, place)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE UNIQUE INDEX lock_waiters_by_lease ON {schema}.lock_waiters (lease, context);

-- What is remembered of the end of a lease or an attempt for an hour: who revoked it, or that it must not come back.
CREATE UNLOGGED TABLE {schema}.lock_endings (
    lease      bytea NOT NULL,
    context    text COLLATE "C" NOT NULL,
    ended_at   timestamptz NOT NULL,
    revoked_by text COLLATE "C",
    reason     bytea,
    PRIMARY KEY (lease, context)
);

-- Processes that listen, and the session that they listen in: while it is there, they are.
CREATE UNLOGGED TABLE {schema}.lock_homes (
    home         text COLLATE "C" PRIMARY KEY,
    pid          integer NOT NULL,
    started      timestamptz NOT NULL,
    absent_since timestamptz
) WITH (fillfactor = 70);

-- How a step ended. `told` is for the process that asked, what others are told goes by NOTIFY: `G lease epoch counter
-- micros` a waiter was granted, `A lease` it is to ask again, `E lease` it was ended, `L lease` a lease was lost; to who
-- looks after its waiters also `H lease epoch counter micros` it holds, and for so long, and `W lease` it waits yet.
CREATE TYPE {schema}.lock_answer AS (
    outcome smallint,   -- 0 no epoch, or nothing there; 1 granted or done, 2 queued, 3 not granted, 4 ended, 5 the lease
                        -- that it is to replace is no more, 6 waiting would close a circle
    epoch   bigint,
    counter bigint,
    next_us bigint,     -- when the first lease in the way runs out; of a lease that was there already, itself
    detail  text,       -- what is in the way, the circle, or who revoked it
    told    text[]
);

-- Each step begins by asking for the isolation and for the lock in one expression, which costs less than a statement;
-- the lock is never null. In any other isolation a step would not see what was done before its lock was granted.
CREATE FUNCTION {schema}.lock_refuse() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'locks need transactions in read committed, and this one is in %',
        current_setting('transaction_isolation') USING ERRCODE = 'invalid_transaction_state',
        HINT = 'set default_transaction_isolation to read committed for this user';
END $$;

-- The path and all above it.
CREATE FUNCTION {schema}.lock_above(in_path text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    above text[] := ARRAY[''];
    last  text;
    part  text;
BEGIN
    IF in_path = '' THEN
        RETURN above;
    END IF;
    FOREACH part IN ARRAY string_to_array(in_path, '/') LOOP
        last := CASE WHEN last IS NULL THEN part ELSE last || '/' || part END;
        above := above || last;
    END LOOP;
    RETURN above;
END $$;

-- Whether any of the one cannot be held together with any of the other.
CREATE FUNCTION {schema}.lock_conflict(
    in_paths text[], in_exclusives boolean[], in_others text[], in_other_exclusives boolean[]
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    a text;
    b text;
BEGIN
    FOR i IN 1 .. cardinality(in_paths) LOOP
        a := in_paths[i];
        FOR j IN 1 .. cardinality(in_others) LOOP
            b := in_others[j];
            IF (in_exclusives[i] OR in_other_exclusives[j])
                AND (a = b OR a = '' OR b = '' OR starts_with(a, b || '/') OR starts_with(b, a || '/')) THEN
                RETURN true;
            END IF;
        END LOOP;
    END LOOP;
    RETURN false;
END $$;

-- The leases in the way of claims, one row each, lapsed ones too. What a request replaces is not in its way.
CREATE FUNCTION {schema}.lock_obstacles(in_context text, in_paths text[], in_exclusives boolean[], in_replaces bytea)
RETURNS SETOF {schema}.lock_claims LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    above text[];
BEGIN
    IF cardinality(in_paths) > 1 THEN
        RETURN QUERY SELECT DISTINCT ON (o.lease) o.* FROM unnest(in_paths, in_exclusives) AS w (path, exclusive)
            CROSS JOIN LATERAL {schema}.lock_obstacles(in_context, ARRAY[w.path], ARRAY[w.exclusive], in_replaces) o;
        RETURN;
    END IF;
    above := {schema}.lock_above(in_paths[1]);
    RETURN QUERY SELECT * FROM {schema}.lock_claims o
        WHERE o.context = in_context AND o.path = ANY (above) AND o.lease IS NOT NULL
          AND (o.exclusive OR in_exclusives[1]) AND o.lease IS DISTINCT FROM in_replaces;
    RETURN QUERY SELECT DISTINCT ON (o.lease) * FROM {schema}.lock_claims o
        WHERE o.context = in_context AND o.path > in_paths[1] || CASE in_paths[1] WHEN '' THEN '' ELSE '/' END
          AND (in_paths[1] = '' OR o.path < in_paths[1] || '0') AND o.lease IS NOT NULL
          AND (o.exclusive OR in_exclusives[1]) AND o.lease IS DISTINCT FROM in_replaces
          -- A lease that claims something above as well is there already.
          AND NOT (o.paths IS NOT NULL AND EXISTS (SELECT FROM {schema}.lock_claims a WHERE a.context = in_context
              AND a.path = ANY (above) AND a.lease = o.lease AND (a.exclusive OR in_exclusives[1])));
END $$;

-- A lease as others see it.
CREATE FUNCTION {schema}.lock_lease_text(o {schema}.lock_claims, in_at timestamptz) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('lease', encode(o.lease, 'hex'), 'agent', o.agent, 'holder', encode(o.holder, 'hex'),
        'paths', coalesce(o.paths, ARRAY[o.path]), 'exclusives', coalesce(o.exclusives, ARRAY[o.exclusive]),
        'reason', encode(o.reason, 'hex'), 'epoch', o.epoch, 'counter', o.counter,
        'since_us', greatest(0, (extract(epoch FROM in_at - o.since) * 1000000)::bigint),
        'left_us', greatest(0, (extract(epoch FROM o.ends - in_at) * 1000000)::bigint))
$$;

-- A request that waits, as others see it.
CREATE FUNCTION {schema}.lock_waiter_text(w {schema}.lock_waiters, in_at timestamptz) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('lease', encode(w.lease, 'hex'), 'agent', w.agent, 'holder', encode(w.holder, 'hex'),
        'paths', w.paths, 'exclusives', w.exclusives, 'reason', encode(w.reason, 'hex'),
        'since_us', greatest(0, (extract(epoch FROM in_at - w.since) * 1000000)::bigint),
        'keeps', ARRAY(SELECT encode(k, 'hex') FROM unnest(w.keeps) AS k), 'replaces', encode(w.replaces, 'hex'))
$$;

-- Tells a process: the one that asks by the answer, another by its channel where it listens.
CREATE FUNCTION {schema}.lock_tell(in_told text[], in_own text, in_home text, in_message text) RETURNS text[]
LANGUAGE plpgsql AS $$
BEGIN
    IF in_home = in_own THEN
        RETURN in_told || in_message;
    END IF;
    IF NOT starts_with(in_home, 'p') THEN
        PERFORM pg_notify('mutext/' || in_home, in_message);
    END IF;
    RETURN in_told;
END $$;

-- Takes a lease out; what it claimed, or null where there is none. `in_path` is one of its paths, where it is known.
CREATE FUNCTION {schema}.lock_drop(in_context text, in_lease bytea) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    freed text[];
BEGIN
    SELECT coalesce(paths, ARRAY[path]) INTO freed FROM {schema}.lock_claims
    WHERE context = in_context AND lease = in_lease LIMIT 1;
    IF FOUND THEN
        DELETE FROM {schema}.lock_claims
        WHERE context = in_context AND path = ANY (freed) AND lease = in_lease AND slot > 0;
        UPDATE {schema}.lock_claims SET lease = NULL
        WHERE context = in_context AND path = ANY (freed) AND lease = in_lease;
    END IF;
    RETURN freed;
END $$;

