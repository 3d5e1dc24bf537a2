-- fence: shut a sale and raise its epoch, so that no script of the old one changes stock. One atomic step.
-- KEYS  1 config
-- ARGV  1 epoch
-- Returns  'FENCED' | 'STALE_EPOCH' (Redis is already at a later one)
local config = KEYS[1]

-- Check everything, …
local epoch = redis.call('HGET', config, 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return 'STALE_EPOCH' end

-- … then write everything.
redis.call('HSET', config, 'epoch', ARGV[1], 'state', 'draining')
return 'FENCED'
