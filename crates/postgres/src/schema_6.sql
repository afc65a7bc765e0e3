-- Locks: numbers to spare. A lease may have the numbers that follow its token's counter, too, so that its process need
-- not give it back between one piece of work and the next; whoever asks for what it is in the way of has it told so.

-- How many numbers after the counter are the lease's, too; null where there are none. Of a free row it says nothing.
-- First of all, as each step takes what it needs in this order: a row, then a number.
ALTER TABLE {schema}.lock_claims ADD COLUMN spare integer;

-- So far from one number to the next: each grant leaves those in between to its lease, which costs nothing, whether
-- they are asked for or not. Nobody takes a number while this is done.
ALTER SEQUENCE {schema}.lock_numbers INCREMENT BY 1024;

-- Sessions that are open keep plans of what reads whole rows, which do not see that a row has grown. What is altered,
-- though nothing changes, they plan anew.
ALTER FUNCTION {schema}.lock_obstacles ROWS 1;
ALTER FUNCTION {schema}.lock_settle COST 100;
ALTER FUNCTION {schema}.lock_circle COST 100;
ALTER FUNCTION {schema}.lock_blocked COST 100;
ALTER FUNCTION {schema}.lock_tend COST 100;

-- Of a grant, the answer's `detail` says how many it has to spare: null where there are none, as where it was made
-- before. `K lease` is told besides: somebody asks for what this lease with numbers to spare is in the way of.

-- A lease as others see it.
CREATE OR REPLACE FUNCTION {schema}.lock_lease_text(o {schema}.lock_claims, in_at timestamptz) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT json_build_object('lease', encode(o.lease, 'hex'), 'agent', o.agent, 'holder', encode(o.holder, 'hex'),
        'paths', coalesce(o.paths, ARRAY[o.path]), 'exclusives', coalesce(o.exclusives, ARRAY[o.exclusive]),
        'reason', encode(o.reason, 'hex'), 'epoch', o.epoch, 'counter', o.counter,
        'since_us', greatest(0, (extract(epoch FROM in_at - o.since) * 1000000)::bigint),
        'left_us', greatest(0, (extract(epoch FROM o.ends - in_at) * 1000000)::bigint),
        'spare', o.spare)
$$;

-- Makes a request a lease; its token's counter. What has lapsed in its way is superseded, and what it replaces ends.
-- It has no numbers to spare.
CREATE OR REPLACE FUNCTION {schema}.lock_grant(
    w {schema}.lock_waiters, in_epoch bigint, in_since timestamptz, in_ttl_us bigint, in_home text,
    INOUT told text[], OUT counter bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    o      {schema}.lock_claims;
    all_of text[] := CASE WHEN cardinality(w.paths) > 1 THEN w.paths END;
    modes  boolean[] := CASE WHEN cardinality(w.paths) > 1 THEN w.exclusives END;
    until  timestamptz := in_since + in_ttl_us * interval '1 microsecond';
BEGIN
    FOR o IN SELECT * FROM {schema}.lock_obstacles(w.context, w.paths, w.exclusives, w.replaces) LOOP
        PERFORM {schema}.lock_drop(w.context, o.lease);
        told := {schema}.lock_tell(told, in_home, o.home, 'L ' || encode(o.lease, 'hex'));
    END LOOP;
    IF w.replaces IS NOT NULL THEN
        PERFORM {schema}.lock_drop(w.context, w.replaces);
    END IF;
    counter := nextval('{schema}.lock_numbers');
    FOR i IN 1 .. cardinality(w.paths) LOOP
        UPDATE {schema}.lock_claims c SET lease = w.lease, exclusive = w.exclusives[i], epoch = in_epoch,
            counter = lock_grant.counter, run = pg_postmaster_start_time(), made_in = c.tableoid, since = in_since,
            ends = until, home = w.home, agent = w.agent, holder = w.holder, reason = w.reason,
            paths = all_of, exclusives = modes, spare = NULL
        WHERE c.context = w.context AND c.path = w.paths[i] AND c.slot = 0 AND c.lease IS NULL;
        IF NOT FOUND THEN
            INSERT INTO {schema}.lock_claims VALUES (w.context, w.paths[i],
                (SELECT coalesce(max(c.slot) + 1, 0) FROM {schema}.lock_claims c
                    WHERE c.context = w.context AND c.path = w.paths[i]),
                w.lease, w.exclusives[i], in_epoch, lock_grant.counter, pg_postmaster_start_time(),
                '{schema}.lock_claims'::regclass, in_since, until, w.home, w.agent, w.holder, w.reason,
                all_of, modes);
        END IF;
    END LOOP;
END $$;

-- Acquire, all cases. The one without `in_spare` stays: somebody may be in the middle of a call of it.
CREATE FUNCTION {schema}.lock_request(w {schema}.lock_waiters, in_wait_us bigint, in_spare integer)
RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
    at     timestamptz := clock_timestamp();
    stands bigint;
    kept   bigint;      -- of these, those with numbers to spare
    waits  boolean;
    o      {schema}.lock_claims;
BEGIN
    answer.told := '{}';
    SELECT c.epoch, c.counter, greatest(0, (extract(epoch FROM c.ends - at) * 1000000)::bigint)
    INTO answer.epoch, answer.counter, answer.next_us FROM {schema}.lock_claims c
    WHERE c.context = w.context AND c.path = w.paths[1] AND c.lease = w.lease;
    IF FOUND THEN
        answer.outcome := 1;
        RETURN answer;
    END IF;
    answer.epoch := {schema}.lock_epoch(w.context);
    IF answer.epoch IS NULL THEN
        answer.outcome := 0;
        RETURN answer;
    END IF;
    IF w.replaces IS NOT NULL AND NOT {schema}.lock_is_held(w.context, w.replaces) THEN
        DELETE FROM {schema}.lock_waiters q WHERE q.context = w.context AND q.lease = w.lease;
        answer.told := {schema}.lock_settle(w.context, w.paths, w.home);
        answer.outcome := 5;
        RETURN answer;
    END IF;
    SELECT count(*), count(x.spare), (extract(epoch FROM min(x.ends) - at) * 1000000)::bigint
    INTO stands, kept, answer.next_us
    FROM {schema}.lock_obstacles(w.context, w.paths, w.exclusives, w.replaces) x WHERE x.ends > at;
    IF EXISTS (SELECT FROM {schema}.lock_waiters q WHERE q.context = w.context AND q.lease = w.lease) THEN
        answer.outcome := 2;
        RETURN answer;
    END IF;
    IF EXISTS (SELECT FROM {schema}.lock_endings e WHERE e.context = w.context AND e.lease = w.lease) THEN
        answer.outcome := 4;
        RETURN answer;
    END IF;
    w.place := nextval('{schema}.lock_numbers');
    IF w.replaces IS NOT NULL THEN
        w.place := w.place - 4611686018427387904;
    END IF;
    FOR look IN 1 .. 2 LOOP
        waits := EXISTS (SELECT FROM {schema}.lock_waiters q WHERE q.context = w.context AND q.place < w.place
            AND {schema}.lock_conflict(w.paths, w.exclusives, q.paths, q.exclusives));
        EXIT WHEN stands > 0 OR NOT waits OR look = 2;
        -- They wait for nothing that stands in our way: perhaps it is their turn, or they have waited too long.
        answer.told := answer.told || {schema}.lock_settle(w.context, w.paths, w.home);
        SELECT count(*), (extract(epoch FROM min(x.ends) - at) * 1000000)::bigint INTO stands, answer.next_us
        FROM {schema}.lock_obstacles(w.context, w.paths, w.exclusives, w.replaces) x WHERE x.ends > at;
    END LOOP;
    IF stands = 0 AND NOT waits THEN
        SELECT answer.told || g.told, g.counter INTO answer.told, answer.counter
        FROM {schema}.lock_grant(w, answer.epoch, at, w.ttl_us, w.home, '{}') g;
        IF in_spare > 0 THEN
            UPDATE {schema}.lock_claims c SET spare = least(in_spare, 1023)
            WHERE c.context = w.context AND c.path = ANY (w.paths) AND c.lease = w.lease;
            answer.detail := least(in_spare, 1023);
        END IF;
        IF w.replaces IS NOT NULL THEN
            -- An exclusive lease that became a shared one lets others in.
            answer.told := answer.told || {schema}.lock_settle(w.context, w.paths, w.home);
        END IF;
        answer.outcome := 1;
        answer.next_us := NULL;
        RETURN answer;
    END IF;
    -- Their holders may have them in hand without using them.
    IF kept > 0 THEN
        FOR o IN SELECT * FROM {schema}.lock_obstacles(w.context, w.paths, w.exclusives, w.replaces) x
            WHERE x.ends > at AND x.spare IS NOT NULL
        LOOP
            answer.told := {schema}.lock_tell(answer.told, w.home, o.home, 'K ' || encode(o.lease, 'hex'));
        END LOOP;
    END IF;
    IF in_wait_us <= 0 THEN
        answer.detail := {schema}.lock_blocked(w, at);
        answer.outcome := 3;
        RETURN answer;
    END IF;
    w.since := at;
    w.ends := at + in_wait_us * interval '1 microsecond';
    INSERT INTO {schema}.lock_waiters VALUES (w.*);
    answer.outcome := 2;
    answer.detail := {schema}.lock_circle(w.context, w.lease, at);
    IF answer.detail IS NOT NULL THEN
        DELETE FROM {schema}.lock_waiters q WHERE q.context = w.context AND q.place = w.place;
        answer.outcome := 6;
    END IF;
    RETURN answer;
END $$;

-- Acquire, the common case first: one claim, a row that is free, nothing held at, above or below its path, nobody in
-- the queue. `in_above` is null where that is not asked for. As few expressions as can be: most of the time of a step
-- goes into making them ready. `in_spare`: how many numbers to spare are asked for. None where the process does not
-- listen, and none where a lease is replaced: others may wait for that already.
CREATE FUNCTION {schema}.lock_acquire(
    in_lane bigint, in_context text, in_lease bytea, in_above text[], in_paths text[], in_exclusives boolean[],
    in_ttl_us bigint, in_wait_us bigint, in_home text, in_agent text, in_holder bytea, in_reason bytea,
    in_keeps bytea[], in_replaces bytea, in_spare integer
) RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_advisory_xact_lock(in_lane) IS NULL THEN
        PERFORM {schema}.lock_refuse();
    END IF;
    IF in_above IS NOT NULL THEN
        UPDATE {schema}.lock_claims c SET lease = in_lease, exclusive = in_exclusives[1],
            counter = nextval('{schema}.lock_numbers'), since = clock_timestamp(),
            ends = clock_timestamp() + in_ttl_us * interval '1 microsecond', home = in_home, agent = in_agent,
            holder = in_holder, reason = in_reason, paths = NULL, exclusives = NULL,
            spare = nullif(least(in_spare, 1023), 0)
        WHERE c.context = in_context AND c.path = in_paths[1] AND c.slot = 0 AND c.lease IS NULL
          AND c.run = pg_postmaster_start_time() AND c.made_in = c.tableoid
          AND NOT EXISTS (SELECT FROM {schema}.lock_claims o WHERE o.context = in_context AND o.path = ANY (in_above)
              AND o.lease IS NOT NULL AND (o.exclusive OR in_exclusives[1]))
          AND NOT EXISTS (SELECT FROM {schema}.lock_claims o WHERE o.context = in_context
              AND o.path > in_paths[1] || '/' AND o.path < in_paths[1] || '0'
              AND o.lease IS NOT NULL AND (o.exclusive OR in_exclusives[1]))
          AND NOT EXISTS (SELECT FROM {schema}.lock_waiters q WHERE q.context = in_context)
          AND NOT EXISTS (SELECT FROM {schema}.lock_endings e WHERE e.lease = in_lease AND e.context = in_context)
        RETURNING 1, c.epoch, c.counter, c.spare::text
        INTO answer.outcome, answer.epoch, answer.counter, answer.detail;
        IF FOUND THEN
            RETURN answer;
        END IF;
    END IF;
    RETURN {schema}.lock_request(ROW(in_context, 0, in_lease, in_paths, in_exclusives, in_ttl_us, clock_timestamp(),
        clock_timestamp(), in_home, in_agent, in_holder, in_reason, in_keeps, in_replaces)::{schema}.lock_waiters,
        in_wait_us, in_spare);
END $$;

-- What a process of the version before calls, which had the schema open while it was raised.
CREATE OR REPLACE FUNCTION {schema}.lock_acquire(
    in_lane bigint, in_context text, in_lease bytea, in_above text[], in_paths text[], in_exclusives boolean[],
    in_ttl_us bigint, in_wait_us bigint, in_home text, in_agent text, in_holder bytea, in_reason bytea,
    in_keeps bytea[], in_replaces bytea
) RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
BEGIN
    RETURN {schema}.lock_acquire(in_lane, in_context, in_lease, in_above, in_paths, in_exclusives, in_ttl_us,
        in_wait_us, in_home, in_agent, in_holder, in_reason, in_keeps, in_replaces, 0);
END $$;
