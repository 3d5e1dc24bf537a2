-- What the dispatcher takes. Without it each of its looks walks past every payment that still waits:
-- 41 ms with 300,000 of them, against less than 1 ms. The drainer's 'capture' rows are not in it.
CREATE INDEX outbox_for_redis ON outbox (message_id) WHERE kind IN ('confirm', 'release', 'restock');
