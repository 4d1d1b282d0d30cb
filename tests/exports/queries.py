"""Five questions that all engines have to answer alike; FROM records."""

QUERIES = {
    "who talks where": """
        SELECT host, path, event, count(*) AS n, sum(len) AS bytes, min(time_ns) AS first,
        max(time_ns) AS last
        FROM records GROUP BY host, path, event ORDER BY host, path, event
    """,
    "who called DELETE": """
        SELECT host, src_comm, src_pid, src_uid, time_ns, text FROM records
        WHERE path LIKE '%docker.sock' AND text LIKE 'DELETE %' ORDER BY host, time_ns
    """,
    "an hour of a path": """
        SELECT count(*) AS n, sum(caplen) AS bytes FROM records
        WHERE path = '/run/docker.sock' AND time >= TIMESTAMP '2023-11-14 22:30:00+00:00'
        AND time < TIMESTAMP '2023-11-14 23:30:00+00:00'
    """,
    "conversations": """
        SELECT host, least(src_sock, dst_sock) AS one, greatest(src_sock, dst_sock) AS other, count(*) AS n,
        count(DISTINCT src_pid) AS senders FROM records
        GROUP BY host, least(src_sock, dst_sock), greatest(src_sock, dst_sock) ORDER BY host, one, other
    """,
    "days, and what is not text": """
        SELECT CAST(date AS STRING) AS day, count(*) AS n, count(text) AS texts, count(payload) AS payloads,
        count(error) AS errors, sum(lost_messages) AS lost FROM records GROUP BY date ORDER BY day
    """,
}
