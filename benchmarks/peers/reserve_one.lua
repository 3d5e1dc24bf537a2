-- reserve_one: reserve.lua for one buyer and one SKU, as a service without batches would write it.
-- Decides and writes the same (a test holds the two together) at less than the cost of a batch of one.
-- KEYS  1 config  2 stock  3 buyers  4 orders
-- ARGV  1 epoch  2 now_ms  3 user_id  4 reservation_id  5 items ('sku*quantity')
-- Returns  { reserved_until_s, reply }; a reply is one of those of reserve.lua
local config, stock, buyers, orders = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now_ms, user, id, items = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local RECORDS_MAX = 16
local STATES = { r = 'reserved', c = 'confirmed', x = 'released', e = 'expired' }

-- Check everything, …
local settings = redis.call('HMGET', config, 'epoch', 'state', 'opens_at_ms', 'closes_at_ms',
  'per_user_max', 'reservation_seconds')
if settings[1] ~= ARGV[1] or settings[2] == 'draining' then return { 0, 'STALE_EPOCH' } end
local until_s = string.format('%010d', math.ceil(now_ms / 1000) + tonumber(settings[6]))
local record, units, count = redis.call('HGET', buyers, user), 0, 0
if record then
  for line in string.gmatch(record, '[^\n]+') do
    local state = string.sub(line, 21, 21)
    if string.sub(line, 1, 20) == id then
      if string.sub(line, 32) ~= items then return { until_s, 'MISMATCH' } end
      return { until_s, 'DUPLICATE ' .. STATES[state] .. ' ' .. string.sub(line, 22, 31) }
    end
    count = count + 1
    if state == 'r' or state == 'c' then
      for quantity in string.gmatch(line, '%*(%d+)') do units = units + quantity end
    end
  end
end
if settings[2] == 'closed' or now_ms >= tonumber(settings[4]) then return { until_s, 'ENDED' } end
if now_ms < tonumber(settings[3]) then return { until_s, 'NOT_STARTED' } end
if settings[2] == 'paused' then return { until_s, 'PAUSED' } end
local sku, quantity = string.match(items, '^([^*,]+)%*(%d+)$')
if not sku then return { until_s, 'UNKNOWN_SKU' } end
quantity = tonumber(quantity)
local available_field, reserved_field = sku .. ':available', sku .. ':reserved'
local counters = redis.call('HMGET', stock, available_field, reserved_field)
local available, reserved = tonumber(counters[1] or nil), tonumber(counters[2] or nil)
if not available then return { until_s, 'UNKNOWN_SKU' } end
if count >= RECORDS_MAX or units + quantity > tonumber(settings[5]) then
  return { until_s, 'LIMIT_REACHED' }
end
if available + reserved < quantity then return { until_s, 'SOLD_OUT' } end
if available < quantity then return { until_s, 'ALL_RESERVED' } end

-- … then write everything.
local line = id .. 'r' .. until_s .. items
redis.call('HSET', buyers, user, record and (record .. '\n' .. line) or line)
redis.call('HSET', stock, available_field, available - quantity, reserved_field, reserved + quantity)
redis.call('XADD', orders, '*', 'until_s', until_s, 'at_ms', ARGV[2],
  'batch', id .. ' ' .. user .. ' ' .. items)
return { until_s, 'RESERVED' }
