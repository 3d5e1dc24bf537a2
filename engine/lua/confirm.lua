-- confirm: turn reserved units into sold ones, once each, for a batch. One atomic step.
-- KEYS  1 config  2 stock  3 buyers
-- ARGV  1 epoch  2… pairs: user_id, reservation_id
-- Returns  one reply per pair: 'CONFIRMED' | 'ALREADY_RESOLVED' | 'NOT_FOUND' | 'STALE_EPOCH'
local config, stock, buyers = KEYS[1], KEYS[2], KEYS[3]
local BATCH_MAX = 512
local pairs_count = (#ARGV - 1) / 2
if pairs_count > BATCH_MAX or pairs_count % 1 ~= 0 then
  return redis.error_reply('ERR confirm takes at most 512 pairs')
end

-- Check everything, …
local replies = {}
local settings = redis.call('HMGET', config, 'epoch', 'state')
if settings[1] ~= ARGV[1] or settings[2] == 'draining' then
  for i = 1, pairs_count do replies[i] = 'STALE_EPOCH' end
  return replies
end

-- … then write everything: each pair stands for itself.
for i = 1, pairs_count do
  local user, id = ARGV[2 * i], ARGV[2 * i + 1]
  local record = redis.call('HGET', buyers, user)
  local at = record and string.find('\n' .. record, '\n' .. id, 1, true)
  if not at then
    replies[i] = 'NOT_FOUND'
  elseif string.sub(record, at + 20, at + 20) ~= 'r' then
    replies[i] = 'ALREADY_RESOLVED'
  else
    redis.call('HSET', buyers, user,
      string.sub(record, 1, at + 19) .. 'c' .. string.sub(record, at + 21))
    local items = string.match(record, '[^\n]*', at + 31)
    for sku, quantity in string.gmatch(items, '([^*,]+)%*(%d+)') do
      redis.call('HINCRBY', stock, sku .. ':reserved', -quantity)
      redis.call('HINCRBY', stock, sku .. ':sold', quantity)
    end
    replies[i] = 'CONFIRMED'
  end
end
return replies
