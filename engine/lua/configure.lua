-- configure: open, pause, resume, close or extend a sale: write its newest settings. One atomic step.
-- KEYS  1 config
-- ARGV  1 epoch  2 revision  3 state  4 opens_at_ms  5 closes_at_ms  6 per_user_max
--       7 reservation_seconds
-- Returns  'CONFIGURED' | 'UNCHANGED' | 'STALE_EPOCH'
--
-- The revision is counted in Postgres, so two operators' changes land in one order everywhere.
local config = KEYS[1]

-- Check everything, …
local settings = redis.call('HMGET', config, 'epoch', 'state', 'revision')
if settings[1] ~= ARGV[1] or settings[2] == 'draining' then return 'STALE_EPOCH' end
if tonumber(settings[3]) >= tonumber(ARGV[2]) then return 'UNCHANGED' end

-- … then write everything.
redis.call('HSET', config, 'revision', ARGV[2], 'state', ARGV[3], 'opens_at_ms', ARGV[4],
  'closes_at_ms', ARGV[5], 'per_user_max', ARGV[6], 'reservation_seconds', ARGV[7])
return 'CONFIGURED'
