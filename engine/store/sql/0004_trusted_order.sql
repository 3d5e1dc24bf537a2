-- Which Redis server was trusted last is told by a number: clocks are set back.

ALTER TABLE redis_servers ADD COLUMN trusted_number bigint;

UPDATE redis_servers SET trusted_number = numbered.number
FROM (SELECT run_id, row_number() OVER (ORDER BY trusted_at, run_id) AS number FROM redis_servers)
    AS numbered
WHERE numbered.run_id = redis_servers.run_id;

ALTER TABLE redis_servers ALTER COLUMN trusted_number SET NOT NULL;
ALTER TABLE redis_servers ALTER COLUMN trusted_number ADD GENERATED ALWAYS AS IDENTITY;

SELECT setval(pg_get_serial_sequence('redis_servers', 'trusted_number'),
              coalesce(max(trusted_number), 0) + 1, false)
FROM redis_servers;
