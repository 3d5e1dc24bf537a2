-- Puts up the mails of what happened to orders since the last look, and moves the mark on: once each.
-- Only events below every transaction that still runs are read: later ones cannot slip in before them.
-- $1  how many events are looked at, at most    Returns how many were.
WITH mark AS MATERIALIZED (
    SELECT written_by, event_id FROM order_mails FOR UPDATE
), news AS MATERIALIZED (
    SELECT events.event_id, events.written_by, events.type, events.sale_id, events.reservation_id,
           events.user_id, events.data
    FROM events, mark
    WHERE (events.written_by, events.event_id) > (mark.written_by, mark.event_id)
      AND events.written_by < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY events.written_by, events.event_id LIMIT $1
), put_up AS (
    INSERT INTO mails (kind, recipient, language, content)
    SELECT replace(news.type, '.', '_'), users.email, coalesce(checkouts.language, users.language),
           jsonb_build_object('name', users.name,
               'order_id', news.sale_id || '.' || news.reservation_id) || news.data
    FROM news
    JOIN users ON users.user_id = news.user_id
        AND users.email_verified_at IS NOT NULL AND users.deleted_at IS NULL
    LEFT JOIN checkouts ON (checkouts.sale_id, checkouts.reservation_id)
        = (news.sale_id, news.reservation_id)
    WHERE news.type IN ('order.paid', 'order.shipped', 'order.cancelled', 'order.refunded')
    ORDER BY news.written_by, news.event_id
), moved AS (
    UPDATE order_mails SET (written_by, event_id) = (
        SELECT written_by, event_id FROM news ORDER BY written_by DESC, event_id DESC LIMIT 1)
    WHERE EXISTS (SELECT FROM news)
)
SELECT count(*) FROM news
