-- Leases that operators broke: their tokens are not admitted any more. Kept for good: they are the audit, too.
CREATE TABLE {schema}.revocations (
    context    text COLLATE "C" NOT NULL,
    lease      bytea NOT NULL,
    number     bigint GENERATED ALWAYS AS IDENTITY,
    holder     text,            -- null, and no claims: the lock service could not tell
    claims     text NOT NULL,
    author     text NOT NULL,
    reason     bytea NOT NULL,
    revoked_at timestamptz NOT NULL,
    PRIMARY KEY (context, lease)
);
CREATE UNIQUE INDEX revocations_by_number ON {schema}.revocations (context, number);

-- Who broke a lease and why, as the answer 5: revoked (author and content say it); null where nobody did.
CREATE FUNCTION {schema}.revoked(in_context text, in_lease bytea)
RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer;
BEGIN
    SELECT 5, author, reason INTO answer.outcome, answer.author, answer.content
    FROM {schema}.revocations WHERE context = in_context AND lease = in_lease;
    RETURN answer;
END $$;

-- The same as without a lease, once it is clear that this one was not revoked. A statement that begins after a
-- revocation was acknowledged sees it; one that began before counts as earlier.
CREATE FUNCTION {schema}.commit_one_under_lease(
    in_lane integer, in_watch integer, in_context text, in_path text, in_demand bigint, in_kind smallint,
    in_content bytea, in_epoch bigint, in_counter bigint, in_owner bytea, in_author text, in_message bytea,
    in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer := {schema}.revoked(in_context, in_owner);
BEGIN
    IF answer.outcome IS NULL THEN
        RETURN {schema}.commit_one(in_lane, in_watch, in_context, in_path, in_demand, in_kind, in_content, in_epoch,
            in_counter, in_owner, in_author, in_message, in_key, in_fingerprint);
    END IF;
    -- What happened before under this key is told all the same.
    RETURN coalesce(CASE WHEN in_key IS NOT NULL THEN {schema}.earlier(in_lane, in_context, in_key, in_fingerprint) END,
        answer);
END $$;

CREATE FUNCTION {schema}.commit_several_under_lease(
    in_lane integer, in_watch integer, in_context text, in_paths text[], in_demands bigint[], in_kinds smallint[],
    in_contents bytea[], in_epoch bigint, in_counter bigint, in_owner bytea, in_author text, in_message bytea,
    in_key text, in_fingerprint bytea
) RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer := {schema}.revoked(in_context, in_owner);
BEGIN
    IF answer.outcome IS NULL THEN
        RETURN {schema}.commit_several(in_lane, in_watch, in_context, in_paths, in_demands, in_kinds, in_contents,
            in_epoch, in_counter, in_owner, in_author, in_message, in_key, in_fingerprint);
    END IF;
    RETURN coalesce(CASE WHEN in_key IS NOT NULL THEN {schema}.earlier(in_lane, in_context, in_key, in_fingerprint) END,
        answer);
END $$;

CREATE FUNCTION {schema}.read_under_lease(in_context text, in_path text, in_epoch bigint, in_counter bigint, in_owner bytea)
RETURNS {schema}.answer LANGUAGE plpgsql AS $$
DECLARE
    answer {schema}.answer := {schema}.revoked(in_context, in_owner);
BEGIN
    IF answer.outcome IS NOT NULL THEN
        RETURN answer;
    END IF;
    RETURN {schema}.read_fenced(in_context, in_path, in_epoch, in_counter, in_owner);
END $$;
