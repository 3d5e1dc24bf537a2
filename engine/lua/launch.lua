-- launch: put a new or rebuilt sale's stock and settings up. One atomic step.
-- KEYS  1 config  2 stock  3 orders
-- ARGV  1 epoch  2 revision  3 state  4 opens_at_ms  5 closes_at_ms  6 per_user_max
--       7 reservation_seconds  8 group  9… quadruples: sku, available, reserved, sold
-- Returns  'LAUNCHED' | 'EXISTS'
--
-- Refuses to touch a live sale: one that has a config, unless it is fenced at the same epoch.
local config, stock, orders = KEYS[1], KEYS[2], KEYS[3]
local SKUS_MAX = 1000       -- Keeps unpack within Lua's limit.
if (#ARGV - 8) % 4 ~= 0 or #ARGV - 8 > 4 * SKUS_MAX then
  return redis.error_reply('ERR launch takes at most 1000 SKUs')
end

-- Check everything, …
local settings = redis.call('HMGET', config, 'epoch', 'state')
if settings[1] and not (settings[1] == ARGV[1] and settings[2] == 'draining') then return 'EXISTS' end

-- … then write everything.
local fields = {}
for i = 9, #ARGV, 4 do
  fields[#fields + 1] = ARGV[i] .. ':available'
  fields[#fields + 1] = ARGV[i + 1]
  fields[#fields + 1] = ARGV[i] .. ':reserved'
  fields[#fields + 1] = ARGV[i + 2]
  fields[#fields + 1] = ARGV[i] .. ':sold'
  fields[#fields + 1] = ARGV[i + 3]
end
redis.call('DEL', stock)
redis.call('HSET', stock, unpack(fields))
-- BUSYGROUP only says that the group is there already.
redis.pcall('XGROUP', 'CREATE', orders, ARGV[8], '0', 'MKSTREAM')
redis.call('HSET', config, 'epoch', ARGV[1], 'revision', ARGV[2], 'state', ARGV[3],
  'opens_at_ms', ARGV[4], 'closes_at_ms', ARGV[5], 'per_user_max', ARGV[6],
  'reservation_seconds', ARGV[7])
return 'LAUNCHED'
