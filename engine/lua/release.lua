-- release: give reservations' units back, once each, for a batch. One atomic step.
-- KEYS  1 config  2 stock  3 buyers
-- ARGV  1 epoch  2… triples: user_id, reservation_id, reason ('released' | 'expired' | 'refunded')
-- Returns  one reply per triple: 'RELEASED' | 'ALREADY_RESOLVED' | 'NOT_FOUND' | 'STALE_EPOCH'
--
-- Only 'refunded' takes sold units back; the other reasons leave a confirmed reservation alone.
local config, stock, buyers = KEYS[1], KEYS[2], KEYS[3]
local BATCH_MAX = 512
local triples = (#ARGV - 1) / 3
if triples > BATCH_MAX or triples % 1 ~= 0 then
  return redis.error_reply('ERR release takes at most 512 triples')
end

-- Check everything, …
local replies = {}
local settings = redis.call('HMGET', config, 'epoch', 'state')
if settings[1] ~= ARGV[1] or settings[2] == 'draining' then
  for i = 1, triples do replies[i] = 'STALE_EPOCH' end
  return replies
end

-- … then write everything: each triple stands for itself.
for i = 1, triples do
  local user, id, reason = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local record = redis.call('HGET', buyers, user)
  local at = record and string.find('\n' .. record, '\n' .. id, 1, true)
  local state = at and string.sub(record, at + 20, at + 20)
  if not at then
    replies[i] = 'NOT_FOUND'
  elseif state == 'r' or (state == 'c' and reason == 'refunded') then
    redis.call('HSET', buyers, user, string.sub(record, 1, at + 19)
      .. (reason == 'expired' and 'e' or 'x') .. string.sub(record, at + 21))
    local held = state == 'r' and ':reserved' or ':sold'
    local items = string.match(record, '[^\n]*', at + 31)
    for sku, quantity in string.gmatch(items, '([^*,]+)%*(%d+)') do
      redis.call('HINCRBY', stock, sku .. held, -quantity)
      redis.call('HINCRBY', stock, sku .. ':available', quantity)
    end
    replies[i] = 'RELEASED'
  else
    replies[i] = 'ALREADY_RESOLVED'
  end
end
return replies
