-- restock: raise the units put up of one SKU to a total. One atomic step.
-- KEYS  1 config  2 stock
-- ARGV  1 epoch  2 sku  3 stocked (the new total of available, reserved and sold)
-- Returns  'RESTOCKED' | 'UNCHANGED' | 'UNKNOWN_SKU' | 'STALE_EPOCH'
--
-- The total comes from Postgres and only grows, so running twice or out of order changes nothing.
local config, stock = KEYS[1], KEYS[2]
local sku, stocked = ARGV[2], tonumber(ARGV[3])

-- Check everything, …
local settings = redis.call('HMGET', config, 'epoch', 'state')
if settings[1] ~= ARGV[1] or settings[2] == 'draining' then return 'STALE_EPOCH' end
local counters = redis.call('HMGET', stock, sku .. ':available', sku .. ':reserved', sku .. ':sold')
if not counters[1] then return 'UNKNOWN_SKU' end
local added = stocked - counters[1] - counters[2] - counters[3]
if added <= 0 then return 'UNCHANGED' end

-- … then write everything.
redis.call('HINCRBY', stock, sku .. ':available', added)
return 'RESTOCKED'
