-- Payments that a statement names, and those of its provider that were captured or refunded in its day.
-- $1 provider   $2, $3 the day's begin and end   $4 payment ids   $5 the provider's names
-- No payment is captured a week after it was made: that keeps the day's search within an index.
SELECT payment_id, provider_ref, status, amount_minor, currency,
       coalesce(captured_at >= $2 AND captured_at < $3, false) AS captured_here,
       coalesce(status = 'refunded' AND refunded_at >= $2 AND refunded_at < $3, false)
           AS refunded_here
FROM payments
WHERE provider = $1 AND (
    payment_id = ANY ($4::text[])
    OR (provider_ref = ANY ($5::text[]) AND created_at >= $2 - interval '7 days')
    OR (captured_at >= $2 AND captured_at < $3 AND created_at >= $2 - interval '7 days')
    OR (status = 'refunded' AND refunded_at >= $2 AND refunded_at < $3))
ORDER BY payment_id
