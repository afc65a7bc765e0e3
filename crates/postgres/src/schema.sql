-- Where each document stands: its last revision, whether it lives, and the highest token that it has seen.
-- Revision 0: no write yet, but a lease has been here. Small rows that are updated in place: the content lies with
-- the revisions. Paths are in byte order.
CREATE TABLE {schema}.documents (
    context       text COLLATE "C" NOT NULL,
    path          text COLLATE "C" NOT NULL,
    revision      bigint NOT NULL,
    live          boolean NOT NULL,
    fence_epoch   bigint,
    fence_counter bigint,
    fence_owner   bytea,
    PRIMARY KEY (context, path)
) WITH (fillfactor = 70);

-- What each commit made of each document: the history, and in the order of `place` the feed. No content: it was
-- deleted. A commit of several documents has several rows with one place; the first alone carries key and
-- fingerprint. Text and messages are bytes because they may hold U+0000, which PostgreSQL's text cannot.
-- No foreign key: the functions below are the only writers, and the check would lock the document's row once more.
CREATE TABLE {schema}.revisions (
    context     text COLLATE "C" NOT NULL,
    path        text COLLATE "C" NOT NULL,
    revision    bigint NOT NULL,
    place       bigint NOT NULL,
    ordinal     integer NOT NULL,
    lane        integer NOT NULL, -- the context in a number
    written_at  timestamptz NOT NULL,
    author      text COLLATE "C" NOT NULL,
    kind        smallint NOT NULL,
    key         text COLLATE "C",
    fingerprint bytea,
    message     bytea,
    content     bytea,
    PRIMARY KEY (path, context, revision)
);
-- No two of its indexes begin with the same column. A plan that is made while the table is empty, and kept, has no
-- reason to prefer one that begins with all that a query names to one that has only its first column in common; and
-- that one would read all the history of a context.
CREATE UNIQUE INDEX revisions_by_place ON {schema}.revisions (lane, place, ordinal);
CREATE UNIQUE INDEX revisions_by_key ON {schema}.revisions (key, context) WHERE key IS NOT NULL;

-- Both compressors are good; the faster one is not in every build of the server.
DO $$
BEGIN
    ALTER TABLE {schema}.revisions ALTER COLUMN content SET COMPRESSION lz4;
EXCEPTION WHEN OTHERS THEN
    NULL;
END $$;

-- The last epoch of fencing tokens that each context has given out.
CREATE TABLE {schema}.epochs (
    context text COLLATE "C" PRIMARY KEY,
    epoch   bigint NOT NULL
);

-- Places in the feed, of all contexts. Taken once, so that `last_value` is always one that was handed out.
CREATE SEQUENCE {schema}.places MINVALUE 0 START 0;
SELECT nextval('{schema}.places');

-- How a call ended: what was committed, or what stands in the way.
CREATE TYPE {schema}.answer AS (
    outcome       smallint,     -- 0 committed or read, 1 replayed, 2 conflict, 3 fenced, 4 key reused
    place         bigint,
    revisions     bigint[],     -- in the commit's order
    watched       boolean,      -- whether somebody waits for commits
    ordinal       integer,      -- which of the commit's documents is in the way, from 1
    fence_epoch   bigint,       -- the highest token that it has seen
    fence_counter bigint,
    fence_owner   bytea,
    revision      bigint,       -- the document as it is now; null where there is none
    kind          smallint,
    content       bytea,
    author        text,
    written_at    timestamptz
);

-- The document as it is now, into the answer to a refusal or a read. Here and below no plain join leads from a document
-- to its revision: a plan made while the table was empty would read all the history to find the last one.
CREATE FUNCTION {schema}.current(in_context text, in_path text, INOUT answer {schema}.answer)
LANGUAGE plpgsql AS $$
BEGIN
    SELECT r.revision, r.kind, r.content, r.author, r.written_at
    INTO answer.revision, answer.kind, answer.content, answer.author, answer.written_at
    FROM {schema}.revisions r
    WHERE r.context = in_context AND r.path = in_path AND r.revision =
        (SELECT d.revision FROM {schema}.documents d WHERE d.context = in_context AND d.path = in_path AND d.live);
END $$;

-- What the key has named before: the same commit again, or another one; null where it has named nothing.
CREATE FUNCTION {schema}.earlier(in_lane integer, in_context text, in_key text, in_fingerprint bytea)
RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
    known  bytea;
BEGIN
    SELECT place, fingerprint INTO answer.place, known
    FROM {schema}.revisions WHERE context = in_context AND key = in_key;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF known <> in_fingerprint THEN
        answer.outcome := 4;
        RETURN answer;
    END IF;
    SELECT array_agg(r.revision ORDER BY r.ordinal) INTO answer.revisions
    FROM {schema}.revisions r WHERE r.lane = in_lane AND r.place = answer.place;
    answer.outcome := 1;
    RETURN answer;
END $$;

-- One commit: its checks and its writes. `in_demands`: -1 nothing, 0 that there is none, else that revision.
--
-- The first statement that changes the documents locks their rows, in the order of their paths, until the end of the
-- transaction. Only then the commit takes its place in the feed: so the places of two commits of one document are in
-- the order of its revisions, and a commit that began after another was acknowledged has the later place.
CREATE FUNCTION {schema}.commit_several(
    in_lane integer, in_watch integer, in_context text, in_paths text[], in_demands bigint[], in_kinds smallint[],
    in_contents bytea[], in_epoch bigint, in_counter bigint, in_owner bytea, in_author text, in_message bytea,
    in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer    {schema}.answer;
    behind    integer;
    unmet     integer;
    missing   text[];
    made      bigint;
BEGIN
    IF in_key IS NOT NULL THEN
        answer := {schema}.earlier(in_lane, in_context, in_key, in_fingerprint);
        IF answer.outcome IS NOT NULL THEN
            RETURN answer;
        END IF;
    END IF;

    WITH locked AS MATERIALIZED (
        SELECT * FROM {schema}.documents
        WHERE context = in_context AND path = ANY (in_paths) ORDER BY path FOR UPDATE
    )
    SELECT
        min(w.ordinal) FILTER (WHERE in_epoch < l.fence_epoch
            OR in_epoch = l.fence_epoch AND (in_counter < l.fence_counter
                OR in_counter = l.fence_counter AND in_owner <> l.fence_owner)),
        min(w.ordinal) FILTER (WHERE w.demand >= 0 AND w.demand <> CASE WHEN l.live THEN l.revision ELSE 0 END),
        array_agg(w.path ORDER BY w.path COLLATE "C") FILTER (WHERE l.path IS NULL),
        array_agg(coalesce(l.revision, 0) + 1 ORDER BY w.ordinal)
    INTO behind, unmet, missing, answer.revisions
    FROM unnest(in_paths, in_demands) WITH ORDINALITY AS w (path, demand, ordinal)
    LEFT JOIN locked l ON l.path = w.path;

    -- A commit that this one has waited for may have been the same intention, sent before.
    IF in_key IS NOT NULL AND (behind IS NOT NULL OR unmet IS NOT NULL) THEN
        answer := {schema}.earlier(in_lane, in_context, in_key, in_fingerprint);
        IF answer.outcome IS NOT NULL THEN
            RETURN answer;
        END IF;
    END IF;

    IF behind IS NOT NULL THEN
        SELECT fence_epoch, fence_counter, fence_owner
        INTO answer.fence_epoch, answer.fence_counter, answer.fence_owner
        FROM {schema}.documents WHERE context = in_context AND path = in_paths[behind];
        answer.outcome := 3;
        answer.ordinal := behind;
        RETURN {schema}.current(in_context, in_paths[behind], answer);
    END IF;

    IF missing IS NOT NULL AND (unmet IS NULL OR in_epoch IS NOT NULL) THEN
        INSERT INTO {schema}.documents (context, path, revision, live)
        SELECT in_context, m.path, 0, false FROM unnest(missing) AS m (path) ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS made = ROW_COUNT;
        IF made < cardinality(missing) THEN
            -- Somebody else has made one meanwhile. From the beginning, without the locks that are held now.
            RAISE EXCEPTION 'a document was made by another commit meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;

    -- A good fence raises the mark even where a precondition then fails: the mark only ever grows.
    IF in_epoch IS NOT NULL AND unmet IS NOT NULL THEN
        -- Nobody waits for the disk: see `read_fenced`.
        PERFORM set_config('synchronous_commit', 'off', true);
        UPDATE {schema}.documents SET fence_epoch = in_epoch, fence_counter = in_counter, fence_owner = in_owner
        WHERE context = in_context AND path = ANY (in_paths)
          AND (fence_epoch, fence_counter) IS DISTINCT FROM (in_epoch, in_counter);
    END IF;

    IF unmet IS NOT NULL THEN
        answer.outcome := 2;
        answer.ordinal := unmet;
        answer.revisions := NULL;
        RETURN {schema}.current(in_context, in_paths[unmet], answer);
    END IF;

    UPDATE {schema}.documents d SET
        revision = d.revision + 1,
        live = w.kind IS NOT NULL,
        fence_epoch = coalesce(in_epoch, d.fence_epoch),
        fence_counter = coalesce(in_counter, d.fence_counter),
        fence_owner = coalesce(in_owner, d.fence_owner)
    FROM unnest(in_paths, in_kinds) AS w (path, kind)
    WHERE d.context = in_context AND d.path = w.path;

    -- Before it takes its place, it enters the list of commits under way: see `changes`.
    PERFORM pg_advisory_xact_lock(in_lane, (nextval('{schema}.places') % 2147483648)::integer);
    answer.place := nextval('{schema}.places');
    INSERT INTO {schema}.revisions
    SELECT in_context, w.path, w.revision, answer.place, w.ordinal, in_lane, clock_timestamp(), in_author,
        coalesce(w.kind, 0),
        CASE w.ordinal WHEN 1 THEN in_key END, CASE w.ordinal WHEN 1 THEN in_fingerprint END, in_message, w.content
    FROM unnest(in_paths, in_kinds, in_contents, answer.revisions) WITH ORDINALITY
        AS w (path, kind, content, revision, ordinal);
    answer.outcome := 0;
    answer.watched := CASE WHEN pg_try_advisory_lock(in_watch, 0) THEN NOT pg_advisory_unlock(in_watch, 0) ELSE true END;
    RETURN answer;
END $$;

-- One commit of one document: the same in two statements (three with a key), where nothing stands in its way.
CREATE FUNCTION {schema}.commit_one(
    in_lane integer, in_watch integer, in_context text, in_path text, in_demand bigint, in_kind smallint,
    in_content bytea, in_epoch bigint, in_counter bigint, in_owner bytea, in_author text, in_message bytea,
    in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
    made   bigint;
BEGIN
    IF in_key IS NULL OR NOT EXISTS (SELECT FROM {schema}.revisions WHERE context = in_context AND key = in_key) THEN
        UPDATE {schema}.documents d SET
            revision = d.revision + 1,
            live = in_kind IS NOT NULL,
            fence_epoch = coalesce(in_epoch, d.fence_epoch),
            fence_counter = coalesce(in_counter, d.fence_counter),
            fence_owner = coalesce(in_owner, d.fence_owner)
        WHERE d.context = in_context AND d.path = in_path
          AND (in_demand < 0 OR in_demand = CASE WHEN d.live THEN d.revision ELSE 0 END)
          AND (in_epoch IS NULL OR d.fence_epoch IS NULL OR in_epoch > d.fence_epoch
            OR in_epoch = d.fence_epoch AND (in_counter > d.fence_counter
                OR in_counter = d.fence_counter AND in_owner = d.fence_owner))
        RETURNING d.revision INTO made;
    END IF;
    IF made IS NULL THEN
        RETURN {schema}.commit_several(in_lane, in_watch, in_context, ARRAY[in_path], ARRAY[in_demand],
            ARRAY[in_kind], ARRAY[in_content], in_epoch, in_counter, in_owner, in_author, in_message, in_key,
            in_fingerprint);
    END IF;
    PERFORM pg_advisory_xact_lock(in_lane, (nextval('{schema}.places') % 2147483648)::integer);
    answer.place := nextval('{schema}.places');
    INSERT INTO {schema}.revisions VALUES (in_context, in_path, made, answer.place, 1, in_lane, clock_timestamp(),
        in_author, coalesce(in_kind, 0), in_key, in_fingerprint, in_message, in_content);
    answer.outcome := 0;
    answer.revisions := ARRAY[made];
    answer.watched := CASE WHEN pg_try_advisory_lock(in_watch, 0) THEN NOT pg_advisory_unlock(in_watch, 0) ELSE true END;
    RETURN answer;
END $$;

-- A read under a lease: raises the document's mark, so that it refuses older tokens from then on.
--
-- Nobody waits for the disk for a mark alone. Whatever is committed later takes the mark to the disk with it, since
-- the log is one. After a crash of the server a mark of its last moments may be missing; then an older holder could
-- still write, under a revision of its own. That write is not lost to the later holder's commit for the revision that
-- it has read: it is refused.
CREATE FUNCTION {schema}.read_fenced(in_context text, in_path text, in_epoch bigint, in_counter bigint, in_owner bytea)
RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        UPDATE {schema}.documents d
        SET fence_epoch = in_epoch, fence_counter = in_counter, fence_owner = in_owner
        WHERE d.context = in_context AND d.path = in_path
          AND (d.fence_epoch IS NULL OR in_epoch > d.fence_epoch
            OR in_epoch = d.fence_epoch AND in_counter > d.fence_counter);
        -- Read after the mark stands: nothing older comes between the two.
        SELECT d.fence_epoch, d.fence_counter, d.fence_owner, r.revision, r.kind, r.content, r.author, r.written_at
        INTO answer.fence_epoch, answer.fence_counter, answer.fence_owner,
            answer.revision, answer.kind, answer.content, answer.author, answer.written_at
        FROM {schema}.documents d
        LEFT JOIN LATERAL (SELECT * FROM {schema}.revisions r
            WHERE d.live AND r.context = d.context AND r.path = d.path AND r.revision = d.revision LIMIT 1) r ON true
        WHERE d.context = in_context AND d.path = in_path;
        EXIT WHEN FOUND;
        INSERT INTO {schema}.documents VALUES (in_context, in_path, 0, false) ON CONFLICT DO NOTHING;
    END LOOP;
    answer.outcome := CASE
        WHEN (answer.fence_epoch, answer.fence_counter, answer.fence_owner) = (in_epoch, in_counter, in_owner) THEN 0
        ELSE 3 END;
    RETURN answer;
END $$;

-- At most `in_limit` commits after `in_after`. A last row of nulls says that one is under way.
--
-- Commits overlap, and a later place may be seen before an earlier one. What holds them apart: a commit takes a
-- number, enters the list of those under way with it (an advisory lock, which others see at once and which ends only
-- after the commit can be seen), and then takes its place, a higher number. So whoever looks at the last number
-- first, then at the list, and then at the documents, misses nothing up to the lowest number in the list: a commit
-- that was not in the list could be seen already, or takes its place after the last number that was looked at.
-- The three looks must be in this order and each with a snapshot of its own (read committed).
CREATE FUNCTION {schema}.changes(in_lane integer, in_context text, in_after bigint, in_limit bigint)
RETURNS TABLE (
    place bigint, author text, message bytea, written_at timestamptz, path text, revision bigint, deleted boolean
) LANGUAGE plpgsql ROWS 10 AS $$
#variable_conflict use_column
DECLARE
    settled   bigint;
    under_way bigint;
BEGIN
    SELECT last_value INTO settled FROM {schema}.places;
    -- The list has the low 31 bits; the number is the one that is nearest to the last.
    SELECT min(settled + 1073741824 - (settled + 1073741824 - l.objid::bigint) % 2147483648) INTO under_way
    FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = (in_lane::bigint & 4294967295)::oid
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database());
    settled := least(settled, under_way);
    RETURN QUERY
        WITH page AS (
            SELECT r.place FROM {schema}.revisions r
            WHERE r.lane = in_lane AND r.place > in_after AND r.place <= settled AND r.ordinal = 1
              AND r.context = in_context
            ORDER BY r.place LIMIT in_limit
        )
        SELECT r.place, r.author, r.message, r.written_at, r.path, r.revision, r.content IS NULL
        FROM {schema}.revisions r
        WHERE r.lane = in_lane AND r.place > in_after AND r.place <= (SELECT max(p.place) FROM page p)
          AND r.context = in_context
        ORDER BY r.place, r.path;
    IF under_way IS NOT NULL THEN
        RETURN QUERY SELECT NULL::bigint, NULL, NULL::bytea, NULL::timestamptz, NULL, NULL::bigint, NULL::boolean;
    END IF;
END $$;
