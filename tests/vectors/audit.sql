-- Audits the log with nothing but Postgres: one row, all of it from the bytes.
--
--   first_bad   the first entry whose place, number, time, link or stored leaf is wrong; null if none
--   size, root  what a checkpoint of this log says (RFC 6962, SHA-256)
--   bad_blobs   blobs, not erased ones, whose salt and content are not what they are named by
--
-- Offsets in an entry (docs/PROTOCOL.md, 2), 1-based: 22 seq (8) · 30 time_us (8) · 38 prev (32).
-- Signatures are not SQL's to check: a changed byte shows in the entry after it, or in the root.
WITH RECURSIVE
hashed AS (
    SELECT
        seq,
        entry,
        leaf,
        sha256('\x00'::bytea || entry) AS computed,
        row_number() OVER (ORDER BY seq) - 1 AS place
    FROM entries
),
linked AS (
    SELECT
        place,
        seq = place
        AND leaf = computed
        AND substring(entry FROM 1 FOR 21) = convert_to(E'countersign/entry/v1\n', 'UTF8')
        AND substring(entry FROM 22 FOR 8) = int8send(place)
        AND substring(entry FROM 30 FOR 8)
            >= lag(substring(entry FROM 30 FOR 8), 1, int8send(0)) OVER by_place
        AND substring(entry FROM 38 FOR 32)
            = lag(computed, 1, decode(repeat('00', 32), 'hex')) OVER by_place AS holds
    FROM hashed
    WINDOW by_place AS (ORDER BY place)
),
-- Pairs of nodes, level by level; a node without a sibling moves up as it is.
tree (nodes) AS (
    SELECT array_agg(computed ORDER BY place) FROM hashed
    UNION ALL
    SELECT (
        SELECT array_agg(
            CASE
                WHEN nodes[i + 1] IS NULL THEN nodes[i]
                ELSE sha256('\x01'::bytea || nodes[i] || nodes[i + 1])
            END ORDER BY i)
        FROM generate_series(1, cardinality(nodes), 2) AS i
    )
    FROM tree
    WHERE cardinality(nodes) > 1
)
SELECT
    (SELECT min(place) FROM linked WHERE holds IS NOT TRUE) AS first_bad,
    (SELECT count(*) FROM entries) AS size,
    coalesce((SELECT nodes[1] FROM tree WHERE cardinality(nodes) = 1), sha256('')) AS root,
    (
        SELECT count(*)
        FROM blobs
        WHERE content IS NOT NULL
            AND digest
                IS DISTINCT FROM
                sha256(convert_to(E'countersign/blob/v1\n', 'UTF8') || salt || content)
    ) AS bad_blobs
