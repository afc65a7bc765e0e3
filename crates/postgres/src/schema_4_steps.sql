-- The steps of the lock engine: see `schema_4.sql`, which comes before. Both are one step of the schema.

-- Makes a request a lease; its token's counter. What has lapsed in its way is superseded, and what it replaces ends.
CREATE FUNCTION {schema}.lock_grant(
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
            paths = all_of, exclusives = modes
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

-- The epoch of a context in this run of the server; null where one must be begun.
CREATE FUNCTION {schema}.lock_epoch(in_context text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT epoch FROM {schema}.lock_contexts WHERE name = in_context
        AND run = pg_postmaster_start_time() AND made_in = '{schema}.lock_claims'::regclass);
END $$;

-- Whether a lease is there, lapsed or not.
CREATE FUNCTION {schema}.lock_is_held(in_context text, in_lease bytea) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM {schema}.lock_claims WHERE context = in_context AND lease = in_lease);
END $$;

-- Serves the queue, first come first served, after the paths in `in_freed` became free. Ends as soon as somebody who
-- was looked at wants each of them for himself alone: whoever comes later waits for him.
CREATE FUNCTION {schema}.lock_settle(in_context text, in_freed text[], in_home text) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    -- A grant that must be told lasts so long until a renewal confirms it.
    confirm_us       constant bigint := 2000000;
    freed            text[] := in_freed;
    taken            text[] := '{}';     -- exclusively, by those who were looked at
    ahead            text[] := '{}';     -- what those want who wait
    ahead_exclusives boolean[] := '{}';
    told             text[] := '{}';
    at               timestamptz := clock_timestamp();
    epoch            bigint := {schema}.lock_epoch(in_context);
    w                {schema}.lock_waiters;
    counter          bigint;
    replaced         text[];
BEGIN
    -- Without an epoch nobody is granted anything: whoever waits finds out and begins one.
    IF epoch IS NULL THEN
        RETURN told;
    END IF;
    FOR w IN SELECT * FROM {schema}.lock_waiters q WHERE q.context = in_context ORDER BY q.place LOOP
        IF w.ends <= at OR (w.replaces IS NOT NULL AND NOT {schema}.lock_is_held(in_context, w.replaces)) THEN
            DELETE FROM {schema}.lock_waiters q WHERE q.context = in_context AND q.place = w.place;
            freed := freed || w.paths;
            told := {schema}.lock_tell(told, in_home, w.home, 'A ' || encode(w.lease, 'hex'));
            CONTINUE;
        END IF;
        IF {schema}.lock_conflict(w.paths, w.exclusives, ahead, ahead_exclusives) OR EXISTS (
            SELECT FROM {schema}.lock_obstacles(in_context, w.paths, w.exclusives, w.replaces) o WHERE o.ends > at
        ) THEN
            FOR i IN 1 .. cardinality(w.paths) LOOP
                IF NOT (w.exclusives[i] AND w.paths[i] = ANY (taken)) THEN
                    ahead := ahead || w.paths[i];
                    ahead_exclusives := ahead_exclusives || w.exclusives[i];
                END IF;
            END LOOP;
        ELSE
            IF w.replaces IS NOT NULL THEN
                SELECT coalesce(c.paths, ARRAY[c.path]) INTO replaced FROM {schema}.lock_claims c
                WHERE c.context = in_context AND c.lease = w.replaces LIMIT 1;
                freed := freed || replaced;
            END IF;
            SELECT g.told, g.counter INTO told, counter
            FROM {schema}.lock_grant(w, epoch, at, least(w.ttl_us, confirm_us), in_home, told) g;
            DELETE FROM {schema}.lock_waiters q WHERE q.context = in_context AND q.place = w.place;
            told := {schema}.lock_tell(told, in_home, w.home, concat_ws(' ', 'G', encode(w.lease, 'hex'), epoch,
                counter, (extract(epoch FROM at) * 1000000)::bigint));
        END IF;
        FOR i IN 1 .. cardinality(w.paths) LOOP
            IF w.exclusives[i] AND w.paths[i] <> ALL (taken) THEN
                taken := taken || w.paths[i];
            END IF;
        END LOOP;
        EXIT WHEN freed <@ taken;
        EXIT WHEN NOT EXISTS (SELECT FROM unnest(freed) AS f (path) WHERE NOT EXISTS (
            SELECT FROM unnest(taken) AS t (path)
            WHERE f.path = t.path OR t.path = '' OR starts_with(f.path, t.path || '/')));
    END LOOP;
    RETURN told;
END $$;

-- The circle of waiters that a request in the queue closes, from one to the next; null where there is none. Looks at
-- those whom the request waits for, at those whom they wait for, and so on, until one of them waits for a lease that the
-- request keeps.
CREATE FUNCTION {schema}.lock_circle(in_context text, in_lease bytea, in_at timestamptz) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    asker   {schema}.lock_waiters;
    kept    bytea[];
    nodes   bytea[] := ARRAY[in_lease];
    came    integer[] := ARRAY[0];          -- from which node
    through bytea[] := ARRAY[NULL::bytea];  -- the lease that it keeps; null where it came before
    w       {schema}.lock_waiters;
    o       {schema}.lock_claims;
    next    bytea;
    step    integer := 0;
    steps   json[] := '{}';
    found   json;
BEGIN
    SELECT * INTO asker FROM {schema}.lock_waiters WHERE context = in_context AND lease = in_lease;
    kept := asker.keeps || CASE WHEN asker.replaces IS NULL THEN '{}' ELSE ARRAY[asker.replaces] END;
    -- Nobody can wait for a request that keeps nothing.
    IF cardinality(kept) = 0 THEN
        RETURN NULL;
    END IF;
    <<search>>
    WHILE step < cardinality(nodes) LOOP
        step := step + 1;
        SELECT * INTO w FROM {schema}.lock_waiters WHERE context = in_context AND lease = nodes[step];
        FOR o IN SELECT * FROM {schema}.lock_obstacles(in_context, w.paths, w.exclusives, w.replaces) x
            WHERE x.ends > in_at
        LOOP
            IF o.lease = ANY (kept) THEN
                found := {schema}.lock_lease_text(o, in_at);
                EXIT search;
            END IF;
            FOR next IN SELECT q.lease FROM {schema}.lock_waiters q WHERE q.context = in_context
                AND (o.lease = ANY (q.keeps) OR q.replaces = o.lease) AND q.lease <> ALL (nodes) ORDER BY q.place
            LOOP
                nodes := nodes || next;
                came := came || step;
                through := through || o.lease;
            END LOOP;
        END LOOP;
        FOR next IN SELECT q.lease FROM {schema}.lock_waiters q WHERE q.context = in_context AND q.place < w.place
            AND q.lease <> ALL (nodes) AND {schema}.lock_conflict(w.paths, w.exclusives, q.paths, q.exclusives)
            ORDER BY q.place
        LOOP
            nodes := nodes || next;
            came := came || step;
            through := through || NULL::bytea;
        END LOOP;
    END LOOP;
    IF found IS NULL THEN
        RETURN NULL;
    END IF;
    -- Back to the asker: each step is who waits, and what for.
    WHILE step > 0 LOOP
        SELECT * INTO w FROM {schema}.lock_waiters WHERE context = in_context AND lease = nodes[step];
        steps := json_build_object('waiter', {schema}.lock_waiter_text(w, in_at),
            CASE WHEN found ->> 'left_us' IS NULL THEN 'request' ELSE 'lease' END, found) || steps;
        IF through[step] IS NULL THEN
            found := {schema}.lock_waiter_text(w, in_at);
        ELSE
            SELECT * INTO o FROM {schema}.lock_claims WHERE context = in_context AND lease = through[step] LIMIT 1;
            found := {schema}.lock_lease_text(o, in_at);
        END IF;
        step := came[step];
    END LOOP;
    RETURN array_to_json(steps);
END $$;

-- What is in the way of a request that is not granted, and how many are before it.
CREATE FUNCTION {schema}.lock_blocked(w {schema}.lock_waiters, in_at timestamptz) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN json_build_object(
        'ahead', (SELECT count(*) FROM {schema}.lock_waiters q WHERE q.context = w.context AND q.place < w.place
            AND {schema}.lock_conflict(w.paths, w.exclusives, q.paths, q.exclusives)),
        'leases', (SELECT coalesce(json_agg({schema}.lock_lease_text(o, in_at)), '[]')
            FROM {schema}.lock_obstacles(w.context, w.paths, w.exclusives, w.replaces) o WHERE o.ends > in_at));
END $$;

-- Acquire, all cases.
CREATE FUNCTION {schema}.lock_request(w {schema}.lock_waiters, in_wait_us bigint) RETURNS {schema}.lock_answer
LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
    at     timestamptz := clock_timestamp();
    stands bigint;
    waits  boolean;
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
    SELECT count(*), (extract(epoch FROM min(o.ends) - at) * 1000000)::bigint INTO stands, answer.next_us
    FROM {schema}.lock_obstacles(w.context, w.paths, w.exclusives, w.replaces) o WHERE o.ends > at;
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
        SELECT count(*), (extract(epoch FROM min(o.ends) - at) * 1000000)::bigint INTO stands, answer.next_us
        FROM {schema}.lock_obstacles(w.context, w.paths, w.exclusives, w.replaces) o WHERE o.ends > at;
    END LOOP;
    IF stands = 0 AND NOT waits THEN
        SELECT answer.told || g.told, g.counter INTO answer.told, answer.counter
        FROM {schema}.lock_grant(w, answer.epoch, at, w.ttl_us, w.home, '{}') g;
        IF w.replaces IS NOT NULL THEN
            -- An exclusive lease that became a shared one lets others in.
            answer.told := answer.told || {schema}.lock_settle(w.context, w.paths, w.home);
        END IF;
        answer.outcome := 1;
        answer.next_us := NULL;
        RETURN answer;
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
-- goes into making them ready.
CREATE FUNCTION {schema}.lock_acquire(
    in_lane bigint, in_context text, in_lease bytea, in_above text[], in_paths text[], in_exclusives boolean[],
    in_ttl_us bigint, in_wait_us bigint, in_home text, in_agent text, in_holder bytea, in_reason bytea,
    in_keeps bytea[], in_replaces bytea
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
            holder = in_holder, reason = in_reason, paths = NULL, exclusives = NULL
        WHERE c.context = in_context AND c.path = in_paths[1] AND c.slot = 0 AND c.lease IS NULL
          AND c.run = pg_postmaster_start_time() AND c.made_in = c.tableoid
          AND NOT EXISTS (SELECT FROM {schema}.lock_claims o WHERE o.context = in_context AND o.path = ANY (in_above)
              AND o.lease IS NOT NULL AND (o.exclusive OR in_exclusives[1]))
          AND NOT EXISTS (SELECT FROM {schema}.lock_claims o WHERE o.context = in_context
              AND o.path > in_paths[1] || '/' AND o.path < in_paths[1] || '0'
              AND o.lease IS NOT NULL AND (o.exclusive OR in_exclusives[1]))
          AND NOT EXISTS (SELECT FROM {schema}.lock_waiters q WHERE q.context = in_context)
          AND NOT EXISTS (SELECT FROM {schema}.lock_endings e WHERE e.lease = in_lease AND e.context = in_context)
        RETURNING 1, c.epoch, c.counter INTO answer.outcome, answer.epoch, answer.counter;
        IF FOUND THEN
            RETURN answer;
        END IF;
    END IF;
    RETURN {schema}.lock_request(ROW(in_context, 0, in_lease, in_paths, in_exclusives, in_ttl_us, clock_timestamp(),
        clock_timestamp(), in_home, in_agent, in_holder, in_reason, in_keeps, in_replaces)::{schema}.lock_waiters,
        in_wait_us);
END $$;

-- Begins an epoch, unless somebody has begun one meanwhile, and serves those who waited for it.
CREATE FUNCTION {schema}.lock_begin(in_lane bigint, in_context text, in_epoch bigint, in_home text)
RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
    here   oid := '{schema}.lock_claims'::regclass;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_advisory_xact_lock(in_lane) IS NULL THEN
        PERFORM {schema}.lock_refuse();
    END IF;
    answer.outcome := 0;
    answer.told := '{}';
    IF {schema}.lock_epoch(in_context) IS NULL THEN
        -- Free rows have the old epoch. What was restored from a dump is nobody's.
        DELETE FROM {schema}.lock_claims WHERE context = in_context AND (lease IS NULL OR made_in <> here);
        IF EXISTS (SELECT FROM {schema}.lock_contexts WHERE name = in_context AND made_in <> here) THEN
            DELETE FROM {schema}.lock_waiters WHERE context = in_context;
        END IF;
        INSERT INTO {schema}.lock_contexts VALUES (in_context, in_epoch, pg_postmaster_start_time(), here)
        ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, run = excluded.run, made_in = excluded.made_in;
        answer.told := {schema}.lock_settle(in_context, ARRAY[''], in_home);
        answer.outcome := 1;
    END IF;
    RETURN answer;
END $$;

-- Release, or revocation where `in_by` says by whom. The common case first: one claim, whose path the holder knows, and
-- nobody in the queue. `in_remember`: an attempt that may be under way yet must not come back.
CREATE FUNCTION {schema}.lock_release(
    in_lane bigint, in_context text, in_lease bytea, in_path text, in_home text, in_by text, in_reason bytea,
    in_remember boolean
) RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
    waits  boolean;
    freed  text[];
    lived  text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_advisory_xact_lock(in_lane) IS NULL THEN
        PERFORM {schema}.lock_refuse();
    END IF;
    IF in_path IS NOT NULL THEN
        UPDATE {schema}.lock_claims SET lease = NULL
        WHERE context = in_context AND path = in_path AND slot = 0 AND lease = in_lease AND paths IS NULL
        RETURNING 1, EXISTS (SELECT FROM {schema}.lock_waiters q WHERE q.context = in_context)
        INTO answer.outcome, waits;
        IF waits THEN
            answer.told := {schema}.lock_settle(in_context, ARRAY[in_path], in_home);
        END IF;
        IF waits IS NOT NULL THEN
            RETURN answer;
        END IF;
    END IF;
    answer.outcome := 0;
    answer.told := '{}';
    SELECT home INTO lived FROM {schema}.lock_claims WHERE context = in_context AND lease = in_lease LIMIT 1;
    IF FOUND THEN
        freed := {schema}.lock_drop(in_context, in_lease);
        IF in_by IS NOT NULL THEN
            answer.told := {schema}.lock_tell(answer.told, in_home, lived, 'L ' || encode(in_lease, 'hex'));
        END IF;
        answer.outcome := 1;
    ELSE
        DELETE FROM {schema}.lock_waiters WHERE context = in_context AND lease = in_lease
        RETURNING paths, home INTO freed, lived;
        IF FOUND THEN
            answer.told := {schema}.lock_tell(answer.told, in_home, lived, 'E ' || encode(in_lease, 'hex'));
            answer.outcome := 1;
        END IF;
    END IF;
    IF in_remember THEN
        INSERT INTO {schema}.lock_endings VALUES (in_lease, in_context, clock_timestamp(), in_by, in_reason)
        ON CONFLICT (lease, context) DO NOTHING;
    END IF;
    IF freed IS NOT NULL THEN
        answer.told := answer.told || {schema}.lock_settle(in_context, freed, in_home);
    END IF;
    RETURN answer;
END $$;

-- An attempt whose time is up leaves the queue: granted at the last moment, or what was in its way.
CREATE FUNCTION {schema}.lock_leave(in_lane bigint, in_context text, in_lease bytea, in_path text, in_home text)
RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
    w      {schema}.lock_waiters;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_advisory_xact_lock(in_lane) IS NULL THEN
        PERFORM {schema}.lock_refuse();
    END IF;
    SELECT epoch, counter, greatest(0, (extract(epoch FROM ends - clock_timestamp()) * 1000000)::bigint)
    INTO answer.epoch, answer.counter, answer.next_us FROM {schema}.lock_claims
    WHERE context = in_context AND path = in_path AND lease = in_lease;
    IF FOUND THEN
        answer.outcome := 1;
        RETURN answer;
    END IF;
    SELECT * INTO w FROM {schema}.lock_waiters WHERE context = in_context AND lease = in_lease;
    IF NOT FOUND THEN
        answer.outcome := 4;
        RETURN answer;
    END IF;
    answer.detail := {schema}.lock_blocked(w, clock_timestamp());
    DELETE FROM {schema}.lock_waiters WHERE context = in_context AND place = w.place;
    answer.told := {schema}.lock_settle(in_context, w.paths, in_home);
    answer.outcome := 3;
    RETURN answer;
END $$;

-- Makes a lease last again, also one that has lapsed and that nobody has taken. `in_paths`: all that it claims, where
-- that is known.
CREATE FUNCTION {schema}.lock_renew(
    in_lane bigint, in_context text, in_lease bytea, in_paths text[], in_ttl_us bigint
) RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer  {schema}.lock_answer;
    claimed text[] := in_paths;
    renewed bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_advisory_xact_lock(in_lane) IS NULL THEN
        PERFORM {schema}.lock_refuse();
    END IF;
    IF claimed IS NULL THEN
        SELECT coalesce(paths, ARRAY[path]) INTO claimed FROM {schema}.lock_claims
        WHERE context = in_context AND lease = in_lease LIMIT 1;
    END IF;
    UPDATE {schema}.lock_claims SET ends = clock_timestamp() + in_ttl_us * interval '1 microsecond'
    WHERE context = in_context AND path = ANY (claimed) AND lease = in_lease;
    GET DIAGNOSTICS renewed = ROW_COUNT;
    IF renewed = cardinality(claimed) THEN
        answer.outcome := 1;
        RETURN answer;
    ELSIF renewed > 0 THEN
        -- It lapsed so long ago that part of it was forgotten.
        PERFORM {schema}.lock_drop(in_context, in_lease);
    END IF;
    SELECT json_build_object('by', e.revoked_by, 'reason', encode(e.reason, 'hex')) INTO answer.detail
    FROM {schema}.lock_endings e WHERE e.lease = in_lease AND e.context = in_context AND e.revoked_by IS NOT NULL;
    answer.outcome := 0;
    RETURN answer;
END $$;

-- Whether a process that listened has had no session for a while: it is taken for dead. Should it live, the fencing
-- token keeps its writes out. Where somebody else looks at this very moment, his look counts.
CREATE FUNCTION {schema}.lock_is_gone(in_home text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    -- A busy machine takes its time to connect again.
    grace constant interval := '1 second';
    h     {schema}.lock_homes;
BEGIN
    SELECT * INTO h FROM {schema}.lock_homes WHERE home = in_home;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Who may not see another user's sessions sees at least that there is one of this number.
    IF EXISTS (SELECT FROM pg_stat_get_activity(h.pid) a WHERE a.backend_start IS NULL OR a.backend_start = h.started) THEN
        IF h.absent_since IS NOT NULL THEN
            UPDATE {schema}.lock_homes SET absent_since = NULL WHERE home =
                (SELECT i.home FROM {schema}.lock_homes i WHERE i.home = in_home FOR UPDATE SKIP LOCKED);
        END IF;
        RETURN false;
    ELSIF h.absent_since IS NULL THEN
        UPDATE {schema}.lock_homes SET absent_since = clock_timestamp() WHERE absent_since IS NULL AND home =
            (SELECT i.home FROM {schema}.lock_homes i WHERE i.home = in_home FOR UPDATE SKIP LOCKED);
        RETURN false;
    END IF;
    RETURN clock_timestamp() - h.absent_since >= grace;
END $$;

-- This session is the presence of a process from now on.
CREATE FUNCTION {schema}.lock_arrive(in_home text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.lock_homes
    SELECT in_home, pg_backend_pid(), a.backend_start FROM pg_stat_get_activity(pg_backend_pid()) a
    ON CONFLICT (home) DO UPDATE SET pid = excluded.pid, started = excluded.started, absent_since = NULL;
    RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;

-- A process looks after its waiters: those that were granted while it could not be told, those whose lock is held by
-- somebody who is dead, or whose lease has run out. `in_paths`: the first path of each.
CREATE FUNCTION {schema}.lock_tend(
    in_lane bigint, in_context text, in_leases bytea[], in_paths text[], in_home text
) RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer  {schema}.lock_answer;
    at      timestamptz := clock_timestamp();
    is_over boolean;
    w       {schema}.lock_waiters;
    o       {schema}.lock_claims;
    b       {schema}.lock_waiters;
    first   timestamptz;
    freed   text[];
    stands  boolean;
    own     text;
    held    text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_advisory_xact_lock(in_lane) IS NULL THEN
        PERFORM {schema}.lock_refuse();
    END IF;
    at := clock_timestamp();
    is_over := {schema}.lock_epoch(in_context) IS NULL;
    answer.outcome := CASE WHEN is_over THEN 0 ELSE 1 END;
    answer.told := '{}';
    FOR i IN 1 .. cardinality(in_leases) LOOP
        own := encode(in_leases[i], 'hex');
        SELECT * INTO w FROM {schema}.lock_waiters q WHERE q.lease = in_leases[i] AND q.context = in_context;
        IF FOUND AND NOT is_over THEN
            freed := '{}';
            stands := false;
            FOR o IN SELECT * FROM {schema}.lock_obstacles(in_context, w.paths, w.exclusives, w.replaces) LOOP
                IF o.ends <= at THEN
                    freed := freed || coalesce(o.paths, ARRAY[o.path]);
                ELSIF {schema}.lock_is_gone(o.home) THEN
                    freed := freed || {schema}.lock_drop(in_context, o.lease);
                    answer.told := {schema}.lock_tell(answer.told, in_home, o.home, 'L ' || encode(o.lease, 'hex'));
                ELSE
                    stands := true;
                    first := least(first, o.ends);
                END IF;
            END LOOP;
            -- A dead process's request, too, is in the way of those behind it.
            FOR b IN SELECT * FROM {schema}.lock_waiters q
                WHERE q.context = in_context AND q.place < w.place AND q.home <> w.home ORDER BY q.place LIMIT 64
            LOOP
                IF {schema}.lock_is_gone(b.home) THEN
                    DELETE FROM {schema}.lock_waiters q WHERE q.context = in_context AND q.place = b.place;
                    freed := freed || b.paths;
                END IF;
            END LOOP;
            IF NOT stands OR w.replaces IS NOT NULL AND NOT {schema}.lock_is_held(in_context, w.replaces) THEN
                freed := freed || w.paths;
            END IF;
            IF freed <> '{}' THEN
                answer.told := answer.told || {schema}.lock_settle(in_context, freed, in_home);
            END IF;
        END IF;
        SELECT concat_ws(' ', 'H', own, c.epoch, c.counter,
            greatest(0, (extract(epoch FROM c.ends - clock_timestamp()) * 1000000)::bigint)) INTO held
        FROM {schema}.lock_claims c
        WHERE c.context = in_context AND c.path = in_paths[i] AND c.lease = in_leases[i];
        IF FOUND THEN
            answer.told := answer.told || held;
        ELSIF EXISTS (SELECT FROM {schema}.lock_waiters q WHERE q.lease = in_leases[i] AND q.context = in_context) THEN
            answer.told := answer.told || (CASE WHEN is_over THEN 'A ' ELSE 'W ' END || own);
        ELSIF EXISTS (SELECT FROM {schema}.lock_endings e WHERE e.lease = in_leases[i] AND e.context = in_context) THEN
            answer.told := answer.told || ('E ' || own);
        ELSE
            answer.told := answer.told || ('A ' || own);
        END IF;
    END LOOP;
    answer.next_us := greatest(0, (extract(epoch FROM first - clock_timestamp()) * 1000000)::bigint);
    RETURN answer;
END $$;

-- Everything at one moment. One statement, so that it has one snapshot.
CREATE FUNCTION {schema}.lock_table(in_context text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'leases', (SELECT coalesce(json_agg({schema}.lock_lease_text(l.o, statement_timestamp()) ORDER BY (l.o).epoch,
                (l.o).counter), '[]') FROM (SELECT DISTINCT ON (o.lease) o FROM {schema}.lock_claims o
                WHERE o.context = in_context AND o.lease IS NOT NULL) AS l (o)),
        'waiters', (SELECT coalesce(json_agg({schema}.lock_waiter_text(w, statement_timestamp()) ORDER BY w.place), '[]')
            FROM {schema}.lock_waiters w WHERE w.context = in_context AND w.ends > statement_timestamp()))
$$;

-- Forgets what nobody needs any more: rows that have been free for long, leases that lapsed long ago, what the dead
-- waited for. Skips whatever somebody works on, so that nobody waits for it.
CREATE FUNCTION {schema}.lock_sweep() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    long_ago timestamptz := clock_timestamp() - interval '1 hour';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM {schema}.lock_claims WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.lock_claims
        WHERE ends < long_ago LIMIT 10000 FOR UPDATE SKIP LOCKED));
    DELETE FROM {schema}.lock_waiters WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.lock_waiters
        WHERE ends < long_ago LIMIT 10000 FOR UPDATE SKIP LOCKED));
    DELETE FROM {schema}.lock_endings WHERE ctid = ANY (ARRAY(SELECT ctid FROM {schema}.lock_endings
        WHERE ended_at < long_ago LIMIT 10000 FOR UPDATE SKIP LOCKED));
    DELETE FROM {schema}.lock_homes WHERE ctid = ANY (ARRAY(SELECT h.ctid FROM {schema}.lock_homes h
        WHERE NOT EXISTS (SELECT FROM pg_stat_get_activity(h.pid) a WHERE a.backend_start IS NULL OR a.backend_start = h.started)
          AND NOT EXISTS (SELECT FROM {schema}.lock_claims c WHERE c.home = h.home AND c.lease IS NOT NULL)
          AND NOT EXISTS (SELECT FROM {schema}.lock_waiters w WHERE w.home = h.home)
        LIMIT 10000 FOR UPDATE SKIP LOCKED));
END $$;
