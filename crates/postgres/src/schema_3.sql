-- When a document is gone by itself, and whether a revision replaced what was there without a precondition.
ALTER TABLE {schema}.documents ADD COLUMN expires_at timestamptz;
-- The revision at which the document stood when the highest token last read or wrote it. Whoever takes no lease may write
-- while somebody holds one; what a holder writes without naming a revision is for the one that it has seen.
ALTER TABLE {schema}.documents ADD COLUMN fence_revision bigint;
CREATE INDEX documents_by_expiry ON {schema}.documents (context, expires_at) WHERE expires_at IS NOT NULL;
ALTER TABLE {schema}.revisions ADD COLUMN overwrote boolean NOT NULL DEFAULT false;

-- Up to which place revisions of a context have been forgotten, and up to which its documents are indexed.
CREATE TABLE {schema}.contexts (
    name    text COLLATE "C" PRIMARY KEY,
    oldest  bigint NOT NULL DEFAULT 0,
    indexed bigint NOT NULL DEFAULT 0
);

-- Keys of commits that have no revision to carry them: they changed nothing, or part of it, or it was purged.
CREATE TABLE {schema}.keys (
    context     text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    place       bigint NOT NULL,
    revisions   bigint[] NOT NULL,
    written_at  timestamptz NOT NULL,
    PRIMARY KEY (context, key)
);

-- The index of words: one row for each document that was there when it was last looked at. Searches keep it, not
-- commits.
CREATE TABLE {schema}.pages (
    context  text COLLATE "C" NOT NULL,
    path     text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    words    tsvector NOT NULL,
    PRIMARY KEY (context, path)
);
CREATE INDEX pages_by_words ON {schema}.pages USING gin (words);

DROP FUNCTION {schema}.commit_several_under_lease;
DROP FUNCTION {schema}.commit_one_under_lease;
DROP FUNCTION {schema}.read_under_lease;
DROP FUNCTION {schema}.read_fenced;
DROP FUNCTION {schema}.commit_one;
DROP FUNCTION {schema}.commit_several;
DROP FUNCTION {schema}.changes;

ALTER TYPE {schema}.answer ADD ATTRIBUTE expires_at timestamptz;
ALTER TYPE {schema}.answer ADD ATTRIBUTE bytes bigint; -- with the outcome 6: so many would be worn down

-- Outcomes of a call, beside those that were there: 6 it would drop more than half of a document.

CREATE OR REPLACE FUNCTION {schema}.current(in_context text, in_path text, INOUT answer {schema}.answer)
LANGUAGE plpgsql AS $$
DECLARE
    last    bigint;
    expires timestamptz;
BEGIN
    SELECT d.revision, d.expires_at INTO last, expires FROM {schema}.documents d
    WHERE d.context = in_context AND d.path = in_path AND d.live
      AND (d.expires_at IS NULL OR d.expires_at > clock_timestamp());
    SELECT r.revision, r.kind, r.content, r.author, r.written_at
    INTO answer.revision, answer.kind, answer.content, answer.author, answer.written_at
    FROM {schema}.revisions r WHERE r.context = in_context AND r.path = in_path AND r.revision = last;
    answer.expires_at := expires;
END $$;

CREATE OR REPLACE FUNCTION {schema}.earlier(in_lane integer, in_context text, in_key text, in_fingerprint bytea)
RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
    known  bytea;
BEGIN
    SELECT place, fingerprint INTO answer.place, known
    FROM {schema}.revisions WHERE context = in_context AND key = in_key;
    IF FOUND THEN
        SELECT array_agg(r.revision ORDER BY r.ordinal) INTO answer.revisions
        FROM {schema}.revisions r WHERE r.lane = in_lane AND r.place = answer.place;
    ELSE
        SELECT place, fingerprint, revisions INTO answer.place, known, answer.revisions
        FROM {schema}.keys WHERE context = in_context AND key = in_key;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    answer.outcome := 1;
    IF known <> in_fingerprint THEN
        answer.outcome := 4;
        answer.revisions := NULL;
    END IF;
    RETURN answer;
END $$;

-- The next place in the feed. Before it takes its place, a commit enters the list of those under way: see `changes`.
CREATE FUNCTION {schema}.next_place(in_lane integer) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(in_lane, (nextval('{schema}.places') % 2147483648)::integer);
    RETURN nextval('{schema}.places');
END $$;

-- Whether somebody waits for commits.
CREATE FUNCTION {schema}.is_watched(in_watch integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN pg_try_advisory_lock(in_watch, 0) THEN NOT pg_advisory_unlock(in_watch, 0) ELSE true END;
END $$;

-- One commit: its checks and its writes. `in_demands`: -1 nothing, 0 that there is none, else that revision.
-- `in_ttls`: null as it was, -1 never, else so many milliseconds from now. `in_guards`: refused where it would drop more
-- than half of a document of `in_guarded_bytes`.
--
-- The first statement that changes the documents locks their rows, in the order of their paths, until the end of the
-- transaction. Only then the commit takes its place in the feed: so the places of two commits of one document are in
-- the order of its revisions, and a commit that began after another was acknowledged has the later place.
CREATE FUNCTION {schema}.commit_several(
    in_lane integer, in_watch integer, in_context text, in_paths text[], in_demands bigint[], in_kinds smallint[],
    in_contents bytea[], in_ttls bigint[], in_guards boolean[], in_guarded_bytes bigint, in_epoch bigint,
    in_counter bigint, in_owner bytea, in_author text, in_message bytea, in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer    {schema}.answer;
    at        timestamptz := clock_timestamp();
    behind    integer;
    unmet     integer;
    eroding   integer;
    missing   text[];
    made      bigint;
    were_live boolean[];
    same      boolean[];
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
    ), standing AS (
        SELECT l.*, l.live AND (l.expires_at IS NULL OR l.expires_at > at) AS is_there FROM locked l
    )
    SELECT
        min(w.ordinal) FILTER (WHERE in_epoch < l.fence_epoch
            OR in_epoch = l.fence_epoch AND (in_counter < l.fence_counter
                OR in_counter = l.fence_counter AND in_owner <> l.fence_owner)),
        min(w.ordinal) FILTER (WHERE w.demand >= 0 AND w.demand <> CASE WHEN l.is_there THEN l.revision ELSE 0 END
            OR w.demand < 0 AND l.fence_revision <> l.revision
                AND (in_epoch, in_counter) = (l.fence_epoch, l.fence_counter)),
        array_agg(w.path ORDER BY w.path COLLATE "C") FILTER (WHERE l.path IS NULL),
        array_agg(coalesce(l.revision, 0) ORDER BY w.ordinal),
        array_agg(coalesce(l.is_there, false) ORDER BY w.ordinal)
    INTO behind, unmet, missing, answer.revisions, were_live
    FROM unnest(in_paths, in_demands) WITH ORDINALITY AS w (path, demand, ordinal)
    LEFT JOIN standing l ON l.path = w.path;

    -- A commit that this one has waited for may have been the same intention, sent before.
    IF in_key IS NOT NULL THEN
        DECLARE
            before {schema}.answer := {schema}.earlier(in_lane, in_context, in_key, in_fingerprint);
        BEGIN
            IF before.outcome IS NOT NULL THEN
                RETURN before;
            END IF;
        END;
    END IF;

    IF behind IS NOT NULL THEN
        SELECT fence_epoch, fence_counter, fence_owner
        INTO answer.fence_epoch, answer.fence_counter, answer.fence_owner
        FROM {schema}.documents WHERE context = in_context AND path = in_paths[behind];
        answer.outcome := 3;
        answer.ordinal := behind;
        RETURN {schema}.current(in_context, in_paths[behind], answer);
    END IF;

    -- A statement of its own, which sees what was committed before the rows were locked.
    SELECT
        min(w.ordinal) FILTER (WHERE in_guards[w.ordinal] AND there.bytes >= in_guarded_bytes
            AND octet_length(w.content) < (there.bytes + 1) / 2),
        array_agg(coalesce(there.is_same, false) ORDER BY w.ordinal)
    INTO eroding, same
    FROM unnest(in_paths, in_kinds, in_contents, answer.revisions, were_live) WITH ORDINALITY
        AS w (path, kind, content, revision, is_there, ordinal)
    LEFT JOIN LATERAL (
        SELECT octet_length(r.content)::bigint AS bytes,
            CASE WHEN octet_length(r.content) = octet_length(w.content)
                THEN r.kind = w.kind AND r.content = w.content ELSE false END AS is_same
        FROM {schema}.revisions r
        WHERE w.is_there AND w.kind IS NOT NULL AND r.context = in_context AND r.path = w.path
          AND r.revision = w.revision LIMIT 1
    ) there ON true;

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
    IF in_epoch IS NOT NULL AND (unmet IS NOT NULL OR eroding IS NOT NULL) THEN
        -- Nobody waits for the disk: see `read_fenced`.
        PERFORM set_config('synchronous_commit', 'off', true);
        UPDATE {schema}.documents
        SET fence_epoch = in_epoch, fence_counter = in_counter, fence_owner = in_owner, fence_revision = revision
        WHERE context = in_context AND path = ANY (in_paths)
          AND (fence_epoch, fence_counter) IS DISTINCT FROM (in_epoch, in_counter);
    END IF;

    IF unmet IS NOT NULL OR eroding IS NOT NULL THEN
        answer.outcome := CASE WHEN unmet IS NOT NULL THEN 2 ELSE 6 END;
        answer.ordinal := coalesce(unmet, eroding);
        answer.revisions := NULL;
        answer := {schema}.current(in_context, in_paths[answer.ordinal], answer);
        IF unmet IS NULL THEN
            answer.bytes := octet_length(answer.content);
            answer.content := NULL;
        END IF;
        RETURN answer;
    END IF;

    UPDATE {schema}.documents d SET
        revision = d.revision + CASE WHEN w.is_same THEN 0 ELSE 1 END,
        live = w.kind IS NOT NULL,
        fence_epoch = coalesce(in_epoch, d.fence_epoch),
        fence_counter = coalesce(in_counter, d.fence_counter),
        fence_owner = coalesce(in_owner, d.fence_owner),
        fence_revision = CASE WHEN in_epoch IS NULL THEN d.fence_revision
            ELSE d.revision + CASE WHEN w.is_same THEN 0 ELSE 1 END END,
        expires_at = CASE
            WHEN w.kind IS NULL OR w.ttl < 0 THEN NULL
            WHEN w.ttl IS NOT NULL THEN at + w.ttl * interval '1 millisecond'
            WHEN w.is_there THEN d.expires_at END
    FROM unnest(in_paths, in_kinds, in_ttls, same, were_live) AS w (path, kind, ttl, is_same, is_there)
    WHERE d.context = in_context AND d.path = w.path;

    SELECT array_agg(w.revision + CASE WHEN w.is_same THEN 0 ELSE 1 END ORDER BY w.ordinal) INTO answer.revisions
    FROM unnest(answer.revisions, same) WITH ORDINALITY AS w (revision, is_same, ordinal);
    answer.outcome := 0;
    IF false = ANY (same) THEN
        answer.place := {schema}.next_place(in_lane);
        -- What goes without a revision for one of its documents keeps its key elsewhere.
        INSERT INTO {schema}.revisions (context, path, revision, place, ordinal, lane, written_at, author, kind, key,
            fingerprint, message, content, overwrote)
        SELECT in_context, w.path, w.revision, answer.place, row_number() OVER (ORDER BY w.ordinal), in_lane, at,
            in_author, coalesce(w.kind, 0),
            CASE w.ordinal WHEN 1 THEN CASE WHEN NOT (true = ANY (same)) THEN in_key END END,
            CASE w.ordinal WHEN 1 THEN CASE WHEN NOT (true = ANY (same)) THEN in_fingerprint END END,
            in_message, w.content, w.is_there AND w.demand < 0 AND in_epoch IS NULL
        FROM unnest(in_paths, in_kinds, in_contents, in_demands, answer.revisions, same, were_live) WITH ORDINALITY
            AS w (path, kind, content, demand, revision, is_same, is_there, ordinal)
        WHERE NOT w.is_same;
        answer.watched := {schema}.is_watched(in_watch);
    ELSE
        SELECT max((SELECT r.place FROM {schema}.revisions r
            WHERE r.context = in_context AND r.path = w.path AND r.revision = w.revision)) INTO answer.place
        FROM unnest(in_paths, answer.revisions) AS w (path, revision);
    END IF;
    IF in_key IS NOT NULL AND true = ANY (same) THEN
        INSERT INTO {schema}.keys
        VALUES (in_context, in_key, in_fingerprint, answer.place, answer.revisions, at);
    END IF;
    RETURN answer;
END $$;

-- One commit of one document: the same in two statements (three with a key), where nothing stands in its way.
CREATE FUNCTION {schema}.commit_one(
    in_lane integer, in_watch integer, in_context text, in_path text, in_demand bigint, in_kind smallint,
    in_content bytea, in_ttl bigint, in_guard boolean, in_guarded_bytes bigint, in_epoch bigint, in_counter bigint,
    in_owner bytea, in_author text, in_message bytea, in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer    {schema}.answer;
    at        timestamptz := clock_timestamp();
    made      bigint;
    overwrote boolean := false;
BEGIN
    -- Where anything may be there, the guard needs the row locked first.
    IF NOT (in_guard AND in_demand < 0) AND (in_key IS NULL
        OR NOT EXISTS (SELECT FROM {schema}.revisions WHERE context = in_context AND key = in_key)
            AND NOT EXISTS (SELECT FROM {schema}.keys WHERE context = in_context AND key = in_key))
    THEN
        UPDATE {schema}.documents d SET
            revision = d.revision + 1,
            live = in_kind IS NOT NULL,
            fence_epoch = coalesce(in_epoch, d.fence_epoch),
            fence_counter = coalesce(in_counter, d.fence_counter),
            fence_owner = coalesce(in_owner, d.fence_owner),
            fence_revision = CASE WHEN in_epoch IS NULL THEN d.fence_revision ELSE d.revision + 1 END,
            expires_at = CASE
                WHEN in_kind IS NULL OR in_ttl < 0 THEN NULL
                WHEN in_ttl IS NOT NULL THEN at + in_ttl * interval '1 millisecond'
                WHEN d.live AND d.expires_at > at THEN d.expires_at END
        WHERE d.context = in_context AND d.path = in_path
          AND (in_demand < 0 OR in_demand =
            CASE WHEN d.live AND (d.expires_at IS NULL OR d.expires_at > at) THEN d.revision ELSE 0 END)
          AND (in_epoch IS NULL OR d.fence_epoch IS NULL OR in_epoch > d.fence_epoch
            OR in_epoch = d.fence_epoch AND (in_counter > d.fence_counter
                OR in_counter = d.fence_counter AND in_owner = d.fence_owner))
          AND (in_epoch IS NULL OR in_demand >= 0 OR coalesce(d.fence_revision, d.revision) = d.revision
            OR (in_epoch, in_counter) <> (d.fence_epoch, d.fence_counter))
          -- The same content, or a document that would be worn down: the long way round.
          AND (in_kind IS NULL OR NOT coalesce((
            SELECT CASE WHEN octet_length(r.content) = octet_length(in_content)
                THEN r.kind = in_kind AND r.content = in_content
                ELSE in_guard AND octet_length(r.content) >= in_guarded_bytes
                    AND octet_length(in_content) < (octet_length(r.content) + 1) / 2 END
            FROM {schema}.revisions r
            WHERE d.live AND r.context = in_context AND r.path = in_path AND r.revision = d.revision), false))
        RETURNING d.revision INTO made;
    END IF;
    IF made IS NULL THEN
        RETURN {schema}.commit_several(in_lane, in_watch, in_context, ARRAY[in_path], ARRAY[in_demand],
            ARRAY[in_kind], ARRAY[in_content], ARRAY[in_ttl], ARRAY[in_guard], in_guarded_bytes, in_epoch, in_counter,
            in_owner, in_author, in_message, in_key, in_fingerprint);
    END IF;
    IF in_demand < 0 AND in_epoch IS NULL AND made > 1 THEN
        overwrote := coalesce((SELECT r.content IS NOT NULL FROM {schema}.revisions r
            WHERE r.context = in_context AND r.path = in_path AND r.revision = made - 1), false);
    END IF;
    answer.place := {schema}.next_place(in_lane);
    INSERT INTO {schema}.revisions (context, path, revision, place, ordinal, lane, written_at, author, kind, key,
        fingerprint, message, content, overwrote)
    VALUES (in_context, in_path, made, answer.place, 1, in_lane, at, in_author, coalesce(in_kind, 0), in_key,
        in_fingerprint, in_message, in_content, overwrote);
    answer.outcome := 0;
    answer.revisions := ARRAY[made];
    answer.watched := {schema}.is_watched(in_watch);
    RETURN answer;
END $$;

-- The same as without a lease, once it is clear that this one was not revoked. A statement that begins after a
-- revocation was acknowledged sees it; one that began before counts as earlier.
CREATE FUNCTION {schema}.commit_one_under_lease(
    in_lane integer, in_watch integer, in_context text, in_path text, in_demand bigint, in_kind smallint,
    in_content bytea, in_ttl bigint, in_guard boolean, in_guarded_bytes bigint, in_epoch bigint, in_counter bigint,
    in_owner bytea, in_author text, in_message bytea, in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer := {schema}.revoked(in_context, in_owner);
BEGIN
    IF answer.outcome IS NULL THEN
        RETURN {schema}.commit_one(in_lane, in_watch, in_context, in_path, in_demand, in_kind, in_content, in_ttl,
            in_guard, in_guarded_bytes, in_epoch, in_counter, in_owner, in_author, in_message, in_key, in_fingerprint);
    END IF;
    -- What happened before under this key is told all the same.
    RETURN coalesce(CASE WHEN in_key IS NOT NULL THEN {schema}.earlier(in_lane, in_context, in_key, in_fingerprint) END,
        answer);
END $$;

CREATE FUNCTION {schema}.commit_several_under_lease(
    in_lane integer, in_watch integer, in_context text, in_paths text[], in_demands bigint[], in_kinds smallint[],
    in_contents bytea[], in_ttls bigint[], in_guards boolean[], in_guarded_bytes bigint, in_epoch bigint,
    in_counter bigint, in_owner bytea, in_author text, in_message bytea, in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer := {schema}.revoked(in_context, in_owner);
BEGIN
    IF answer.outcome IS NULL THEN
        RETURN {schema}.commit_several(in_lane, in_watch, in_context, in_paths, in_demands, in_kinds, in_contents,
            in_ttls, in_guards, in_guarded_bytes, in_epoch, in_counter, in_owner, in_author, in_message, in_key,
            in_fingerprint);
    END IF;
    RETURN coalesce(CASE WHEN in_key IS NOT NULL THEN {schema}.earlier(in_lane, in_context, in_key, in_fingerprint) END,
        answer);
END $$;

-- A read under a lease: raises the document's mark, so that it refuses older tokens from then on.
--
-- Nobody waits for the disk for a mark alone. Whatever is committed later takes the mark to the disk with it, since
-- the log is one. After a crash of the server a mark of its last moments may be missing; then an older holder could
-- still write, under a revision of its own. That write is not lost to the later holder's commit for the revision that
-- it has read: it is refused.
CREATE FUNCTION {schema}.read_under_lease(in_context text, in_path text, in_epoch bigint, in_counter bigint, in_owner bytea)
RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer := {schema}.revoked(in_context, in_owner);
BEGIN
    IF answer.outcome IS NOT NULL THEN
        RETURN answer;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    LOOP
        UPDATE {schema}.documents d SET
            fence_epoch = in_epoch, fence_counter = in_counter, fence_owner = in_owner, fence_revision = d.revision
        WHERE d.context = in_context AND d.path = in_path
          AND (d.fence_epoch IS NULL OR in_epoch > d.fence_epoch
            OR in_epoch = d.fence_epoch AND (in_counter > d.fence_counter
                OR in_counter = d.fence_counter AND in_owner = d.fence_owner AND d.fence_revision <> d.revision));
        -- Read after the mark stands: nothing older comes between the two.
        SELECT d.fence_epoch, d.fence_counter, d.fence_owner, r.revision, r.kind, r.content, r.author, r.written_at,
            d.expires_at
        INTO answer.fence_epoch, answer.fence_counter, answer.fence_owner,
            answer.revision, answer.kind, answer.content, answer.author, answer.written_at, answer.expires_at
        FROM {schema}.documents d
        LEFT JOIN LATERAL (SELECT * FROM {schema}.revisions r
            WHERE d.live AND (d.expires_at IS NULL OR d.expires_at > clock_timestamp())
              AND r.context = d.context AND r.path = d.path AND r.revision = d.revision LIMIT 1) r ON true
        WHERE d.context = in_context AND d.path = in_path;
        EXIT WHEN FOUND;
        INSERT INTO {schema}.documents VALUES (in_context, in_path, 0, false) ON CONFLICT DO NOTHING;
    END LOOP;
    answer.outcome := CASE
        WHEN (answer.fence_epoch, answer.fence_counter, answer.fence_owner) = (in_epoch, in_counter, in_owner) THEN 0
        ELSE 3 END;
    RETURN answer;
END $$;

-- The last place before which nothing is still to come, and whether a commit is under way after it.
--
-- Commits overlap, and a later place may be seen before an earlier one. What holds them apart: a commit takes a
-- number, enters the list of those under way with it (an advisory lock, which others see at once and which ends only
-- after the commit can be seen), and then takes its place, a higher number. So whoever looks at the last number
-- first, then at the list, and then at the documents, misses nothing up to the lowest number in the list: a commit
-- that was not in the list could be seen already, or takes its place after the last number that was looked at.
-- The looks must be in this order and each with a snapshot of its own (read committed).
CREATE FUNCTION {schema}.settled(in_lane integer, OUT place bigint, OUT is_under_way boolean) LANGUAGE plpgsql AS $$
DECLARE
    under_way bigint;
BEGIN
    SELECT last_value INTO place FROM {schema}.places;
    -- The list has the low 31 bits; the number is the one that is nearest to the last.
    SELECT min(place + 1073741824 - (place + 1073741824 - l.objid::bigint) % 2147483648) INTO under_way
    FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = (in_lane::bigint & 4294967295)::oid
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database());
    place := least(place, under_way);
    is_under_way := under_way IS NOT NULL;
END $$;

-- At most `in_limit` commits after `in_after`. A last row without a place says that one is under way; one with `oldest`
-- that some are forgotten.
CREATE FUNCTION {schema}.changes(in_lane integer, in_context text, in_after bigint, in_limit bigint)
RETURNS TABLE (
    place bigint, author text, message bytea, written_at timestamptz, path text, revision bigint, deleted boolean,
    oldest bigint
) LANGUAGE plpgsql ROWS 10 AS $$
#variable_conflict use_column
DECLARE
    settled      bigint;
    is_under_way boolean;
BEGIN
    SELECT s.place, s.is_under_way INTO settled, is_under_way FROM {schema}.settled(in_lane) s;
    RETURN QUERY
        WITH page AS (
            SELECT r.place FROM {schema}.revisions r
            WHERE r.lane = in_lane AND r.place > in_after AND r.place <= settled AND r.ordinal = 1
              AND r.context = in_context
            ORDER BY r.place LIMIT in_limit
        )
        SELECT r.place, r.author, r.message, r.written_at, r.path, r.revision, r.content IS NULL, NULL::bigint
        FROM {schema}.revisions r
        WHERE r.lane = in_lane AND r.place > in_after AND r.place <= (SELECT max(p.place) FROM page p)
          AND r.context = in_context
        ORDER BY r.place, r.path;
    -- Looked at after the page: what was forgotten before the page was read is told.
    RETURN QUERY
        SELECT NULL::bigint, NULL, NULL::bytea, NULL::timestamptz, NULL, NULL::bigint, NULL::boolean, c.oldest
        FROM {schema}.contexts c WHERE c.name = in_context AND c.oldest > in_after;
    IF is_under_way THEN
        RETURN QUERY SELECT NULL::bigint, NULL, NULL::bytea, NULL::timestamptz, NULL, NULL::bigint, NULL::boolean,
            NULL::bigint;
    END IF;
END $$;

-- Deletes some of the documents that have expired, as one commit.
CREATE FUNCTION {schema}.expire(in_lane integer, in_watch integer, in_context text, in_limit bigint)
RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
    at     timestamptz := clock_timestamp();
    paths  text[];
BEGIN
    WITH expired AS MATERIALIZED (
        SELECT path, revision FROM {schema}.documents
        WHERE context = in_context AND expires_at <= at AND live ORDER BY path LIMIT in_limit FOR UPDATE SKIP LOCKED
    )
    SELECT array_agg(path), array_agg(revision + 1) INTO paths, answer.revisions FROM expired;
    answer.outcome := 0;
    IF paths IS NULL THEN
        RETURN answer;
    END IF;
    UPDATE {schema}.documents SET revision = revision + 1, live = false, expires_at = NULL
    WHERE context = in_context AND path = ANY (paths);
    answer.place := {schema}.next_place(in_lane);
    INSERT INTO {schema}.revisions (context, path, revision, place, ordinal, lane, written_at, author, kind, message)
    SELECT in_context, w.path, w.revision, answer.place, w.ordinal, in_lane, at, 'mutext', 0, 'expired'
    FROM unnest(paths, answer.revisions) WITH ORDINALITY AS w (path, revision, ordinal);
    answer.watched := {schema}.is_watched(in_watch);
    RETURN answer;
END $$;

-- Forgets some of the revisions that need not be kept: those that are not among the last `in_kept` of their document,
-- and those that were replaced more than `in_age` milliseconds ago.
CREATE FUNCTION {schema}.forget(in_context text, in_kept bigint, in_age bigint, in_keys_kept bigint, in_limit bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    at         timestamptz := clock_timestamp();
    keyed_from timestamptz := at - in_keys_kept * interval '1 millisecond';
    gone       bigint;
    up_to      bigint;
BEGIN
    WITH dispensable AS MATERIALIZED (
        SELECT r.path, r.revision, n.place FROM {schema}.revisions r
        JOIN {schema}.documents d ON d.context = r.context AND d.path = r.path
        CROSS JOIN LATERAL (SELECT n.place, n.written_at FROM {schema}.revisions n
            WHERE n.context = r.context AND n.path = r.path AND n.revision > r.revision
            ORDER BY n.revision LIMIT 1) n
        WHERE r.context = in_context
          AND (r.revision <= d.revision - in_kept OR n.written_at < at - in_age * interval '1 millisecond')
          AND NOT EXISTS (SELECT FROM {schema}.revisions k WHERE k.lane = r.lane AND k.place = r.place
            AND k.key IS NOT NULL AND k.written_at > keyed_from)
        LIMIT in_limit
    ), forgotten AS (
        DELETE FROM {schema}.revisions r USING dispensable e
        WHERE r.context = in_context AND r.path = e.path AND r.revision = e.revision RETURNING e.place
    )
    SELECT count(*), max(place) INTO gone, up_to FROM forgotten;
    DELETE FROM {schema}.keys WHERE context = in_context AND written_at < keyed_from;
    IF gone > 0 THEN
        INSERT INTO {schema}.contexts AS c (name, oldest) VALUES (in_context, up_to)
        ON CONFLICT (name) DO UPDATE SET oldest = greatest(c.oldest, excluded.oldest);
    END IF;
    RETURN gone;
END $$;

-- Deletes a document with all that it ever held, and leaves a tombstone. Its keys are kept, so that a late retry of a
-- write does not bring back what was purged.
CREATE FUNCTION {schema}.purge(
    in_lane integer, in_watch integer, in_context text, in_path text, in_author text, in_message bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
    at     timestamptz := clock_timestamp();
    last   bigint;
    headless bigint[];
BEGIN
    SELECT revision INTO last FROM {schema}.documents WHERE context = in_context AND path = in_path FOR UPDATE;
    answer.outcome := 0;
    IF NOT EXISTS (SELECT FROM {schema}.revisions
        WHERE context = in_context AND path = in_path AND content IS NOT NULL)
    THEN
        RETURN answer;
    END IF;
    INSERT INTO {schema}.keys
    SELECT r.context, r.key, r.fingerprint, r.place,
        (SELECT array_agg(o.revision ORDER BY o.ordinal) FROM {schema}.revisions o
            WHERE o.lane = r.lane AND o.place = r.place), r.written_at
    FROM {schema}.revisions r WHERE r.context = in_context AND r.path = in_path AND r.key IS NOT NULL;
    WITH purged AS (
        DELETE FROM {schema}.revisions WHERE context = in_context AND path = in_path RETURNING place, ordinal
    )
    SELECT array_agg(place) FILTER (WHERE ordinal = 1) INTO headless FROM purged;
    -- Commits that changed others too go on with the next of them as their first: the feed finds them by that.
    UPDATE {schema}.revisions r SET ordinal = 1
    WHERE r.lane = in_lane AND r.context = in_context AND r.place = ANY (headless) AND r.ordinal =
        (SELECT min(o.ordinal) FROM {schema}.revisions o WHERE o.lane = in_lane AND o.place = r.place);
    DELETE FROM {schema}.pages WHERE context = in_context AND path = in_path;
    UPDATE {schema}.documents SET revision = last + 1, live = false, expires_at = NULL
    WHERE context = in_context AND path = in_path;
    answer.place := {schema}.next_place(in_lane);
    INSERT INTO {schema}.revisions (context, path, revision, place, ordinal, lane, written_at, author, kind, message)
    VALUES (in_context, in_path, last + 1, answer.place, 1, in_lane, at, in_author, 0, in_message);
    answer.revisions := ARRAY[last + 1];
    answer.watched := {schema}.is_watched(in_watch);
    RETURN answer;
END $$;

-- Archived commits, all of them, where the context has no document yet: a row for each document of each commit.
CREATE FUNCTION {schema}.restore(
    in_lane integer, in_watch integer, in_context text, in_commits bigint[], in_authors text[], in_messages bytea[],
    in_times timestamptz[], in_paths text[], in_revisions bigint[], in_kinds smallint[], in_contents bytea[],
    in_overwrote boolean[], in_expiries timestamptz[]
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
    places bigint[];
BEGIN
    answer.outcome := 2;
    -- One restoration of a context at a time; and it is looked whether there is anything after the lock is had.
    INSERT INTO {schema}.contexts (name) VALUES (in_context) ON CONFLICT DO NOTHING;
    PERFORM FROM {schema}.contexts WHERE name = in_context FOR UPDATE;
    IF EXISTS (SELECT FROM {schema}.documents WHERE context = in_context AND revision > 0) THEN
        RETURN answer;
    END IF;
    SELECT array_agg({schema}.next_place(in_lane)) INTO places
    FROM generate_series(1, coalesce((SELECT max(n) FROM unnest(in_commits) n), 0));
    -- A document that another commit makes meanwhile stands in the way of this row: the server says so, and all begins anew.
    INSERT INTO {schema}.documents AS d (context, path, revision, live, expires_at)
    SELECT DISTINCT ON (w.path COLLATE "C") in_context, w.path, w.revision, w.kind IS NOT NULL, w.expires_at
    FROM unnest(in_paths, in_revisions, in_kinds, in_expiries) AS w (path, revision, kind, expires_at)
    ORDER BY w.path COLLATE "C", w.revision DESC
    ON CONFLICT (context, path) DO UPDATE
        SET revision = excluded.revision, live = excluded.live, expires_at = excluded.expires_at WHERE d.revision = 0;
    INSERT INTO {schema}.revisions (context, path, revision, place, ordinal, lane, written_at, author, kind, message,
        content, overwrote)
    SELECT in_context, w.path, w.revision, places[w.number],
        row_number() OVER (PARTITION BY w.number ORDER BY w.path COLLATE "C"), in_lane, w.written_at, w.author,
        coalesce(w.kind, 0), w.message, w.content, w.overwrote
    FROM unnest(in_commits, in_authors, in_messages, in_times, in_paths, in_revisions, in_kinds, in_contents, in_overwrote)
        AS w (number, author, message, written_at, path, revision, kind, content, overwrote);
    answer.outcome := 0;
    answer.place := coalesce(places[cardinality(places)], 0);
    answer.watched := {schema}.is_watched(in_watch);
    RETURN answer;
END $$;

-- A document's text. The database's text cannot hold U+0000: there a blank takes its place.
CREATE FUNCTION {schema}.text_of(in_content bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN convert_from(in_content, 'UTF8');
EXCEPTION WHEN OTHERS THEN
    RETURN (SELECT convert_from(string_agg(CASE get_byte(in_content, n) WHEN 0 THEN '\x20'::bytea
        ELSE substr(in_content, n + 1, 1) END, ''::bytea ORDER BY n), 'UTF8')
        FROM generate_series(0, octet_length(in_content) - 1) n);
END $$;

-- The words of a text. Of one that has more different words than an index can hold, those of its beginning.
CREATE FUNCTION {schema}.words_of(in_text text) RETURNS tsvector LANGUAGE plpgsql AS $$
BEGIN
    RETURN to_tsvector('simple', in_text);
EXCEPTION WHEN program_limit_exceeded THEN
    RETURN to_tsvector('simple', left(in_text, 200000));
END $$;

-- Indexes some of what has changed; says whether more is left.
CREATE FUNCTION {schema}.index_pages(in_lane integer, in_context text, in_limit bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    up_to   bigint;
    settled bigint;
    last    bigint;
BEGIN
    SELECT place INTO settled FROM {schema}.settled(in_lane);
    SELECT c.indexed INTO up_to FROM {schema}.contexts c WHERE c.name = in_context;
    IF NOT EXISTS (SELECT FROM {schema}.revisions r WHERE r.lane = in_lane AND r.place > coalesce(up_to, 0)
        AND r.place <= settled AND r.context = in_context)
    THEN
        RETURN false;
    END IF;
    -- The index can be made again: nobody waits for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO {schema}.contexts (name) VALUES (in_context) ON CONFLICT DO NOTHING;
    SELECT c.indexed INTO up_to FROM {schema}.contexts c WHERE c.name = in_context FOR UPDATE;
    -- Whole commits.
    SELECT max(p.place) INTO last FROM (
        SELECT r.place FROM {schema}.revisions r
        WHERE r.lane = in_lane AND r.place > up_to AND r.place <= settled AND r.ordinal = 1 AND r.context = in_context
        ORDER BY r.place LIMIT in_limit) p;
    IF last IS NULL THEN
        -- What is left has no first document: forgotten, or indexed by another meanwhile.
        UPDATE {schema}.contexts c SET indexed = greatest(c.indexed, settled) WHERE c.name = in_context;
        RETURN false;
    END IF;
    DELETE FROM {schema}.pages p WHERE p.context = in_context AND p.path IN (
        SELECT r.path FROM {schema}.revisions r
        WHERE r.lane = in_lane AND r.place > up_to AND r.place <= last AND r.context = in_context);
    INSERT INTO {schema}.pages (context, path, revision, words)
    SELECT in_context, d.path, d.revision, {schema}.words_of({schema}.text_of(t.content))
    FROM (SELECT DISTINCT r.path FROM {schema}.revisions r
        WHERE r.lane = in_lane AND r.place > up_to AND r.place <= last AND r.context = in_context) c
    JOIN {schema}.documents d ON d.context = in_context AND d.path = c.path AND d.live
    CROSS JOIN LATERAL (SELECT r.content FROM {schema}.revisions r
        WHERE r.context = in_context AND r.path = d.path AND r.revision = d.revision LIMIT 1) t;
    UPDATE {schema}.contexts c SET indexed = last WHERE c.name = in_context;
    RETURN true;
END $$;

-- At most `in_limit` documents that are there and have what is looked for, the best first.
CREATE FUNCTION {schema}.search(in_context text, in_words tsquery, in_from text, in_end text, in_limit bigint)
RETURNS TABLE (path text, revision bigint, snippet text) LANGUAGE sql AS $$
    SELECT f.path, f.revision, ts_headline('simple', {schema}.text_of(t.content), in_words,
        'StartSel=**, StopSel=**, MaxFragments=1, MaxWords=16, MinWords=6, FragmentDelimiter=" … "')
    FROM (
        SELECT p.path, d.revision, ts_rank(p.words, in_words) AS rank FROM {schema}.pages p
        JOIN {schema}.documents d ON d.context = p.context AND d.path = p.path AND d.live
            AND (d.expires_at IS NULL OR d.expires_at > clock_timestamp())
        WHERE p.words @@ in_words AND p.context = in_context AND p.path >= in_from AND p.path < in_end
        ORDER BY rank DESC, p.path LIMIT in_limit
    ) f
    CROSS JOIN LATERAL (SELECT r.content FROM {schema}.revisions r
        WHERE r.context = in_context AND r.path = f.path AND r.revision = f.revision LIMIT 1) t
    ORDER BY f.rank DESC, f.path
$$;
