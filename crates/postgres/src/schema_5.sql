-- An epoch that is minted is above the marks of all documents of its context. A mark's epoch changes once in an epoch, so
-- that most updates of a row leave this index alone.
CREATE INDEX documents_by_epoch ON {schema}.documents (context, fence_epoch) WHERE fence_epoch IS NOT NULL;

-- Locks: an epoch that is begun is above the last one that is remembered, of whatever run, and above a number: whoever
-- finds that tokens are behind what documents have seen begins another one in the same run.

-- Begins an epoch, unless this run has one above `in_above`, and serves those who waited for it. Outcome 1: there is one
-- as it is to be; 0: the one that was brought (null where none is minted yet) is not above the last, which is in `epoch`.
CREATE FUNCTION {schema}.lock_begin(
    in_lane bigint, in_context text, in_epoch bigint, in_above bigint, in_home text
) RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
    here   oid := '{schema}.lock_claims'::regclass;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR pg_advisory_xact_lock(in_lane) IS NULL THEN
        PERFORM {schema}.lock_refuse();
    END IF;
    answer.told := '{}';
    IF {schema}.lock_epoch(in_context) > in_above THEN
        answer.outcome := 1;
        RETURN answer;
    END IF;
    answer.epoch := coalesce((SELECT c.epoch FROM {schema}.lock_contexts c WHERE c.name = in_context), 0);
    IF in_epoch IS NULL OR in_epoch <= greatest(answer.epoch, in_above) THEN
        answer.outcome := 0;
        RETURN answer;
    END IF;
    -- Free rows have the old epoch. What was restored from a dump is nobody's.
    DELETE FROM {schema}.lock_claims WHERE context = in_context AND (lease IS NULL OR made_in <> here);
    IF EXISTS (SELECT FROM {schema}.lock_contexts WHERE name = in_context AND made_in <> here) THEN
        DELETE FROM {schema}.lock_waiters WHERE context = in_context;
    END IF;
    -- Rows that are held have it too, and are free one day: of no run, none of them is granted by its own epoch.
    UPDATE {schema}.lock_claims SET run = '-infinity' WHERE context = in_context;
    INSERT INTO {schema}.lock_contexts VALUES (in_context, in_epoch, pg_postmaster_start_time(), here)
    ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, run = excluded.run, made_in = excluded.made_in;
    answer.told := {schema}.lock_settle(in_context, ARRAY[''], in_home);
    answer.outcome := 1;
    RETURN answer;
END $$;

-- What a process of the version before calls, which had the schema open while it was raised: it brings an epoch at once,
-- looks at no outcome, and asks for its lock again. Where that cannot help it would do so for ever.
CREATE OR REPLACE FUNCTION {schema}.lock_begin(in_lane bigint, in_context text, in_epoch bigint, in_home text)
RETURNS {schema}.lock_answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.lock_answer;
BEGIN
    answer := {schema}.lock_begin(in_lane, in_context, in_epoch, 0::bigint, in_home);
    IF answer.outcome = 0 THEN
        RAISE EXCEPTION 'epoch % of the locks of % is not above %, the last one: this process is older than the schema; upgrade it',
            in_epoch, in_context, answer.epoch;
    END IF;
    RETURN answer;
END $$;
