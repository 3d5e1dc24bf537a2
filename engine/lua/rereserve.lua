-- rereserve: sell an expired reservation's units after all, because its payment came late. One atomic step.
-- KEYS  1 config  2 stock  3 buyers
-- ARGV  1 epoch  2 user_id  3 reservation_id
-- Returns  'RERESERVED' | 'ALREADY_CONFIRMED' | 'SOLD_OUT' | 'LIMIT_REACHED' | 'RELEASED' | 'NOT_FOUND'
--   | 'STALE_EPOCH'
--
-- The window is not asked: the buyer reserved in time and paid. A reservation that Postgres has
-- expired but Redis still holds is simply confirmed.
local config, stock, buyers = KEYS[1], KEYS[2], KEYS[3]
local user, id = ARGV[2], ARGV[3]

-- Check everything, …
local settings = redis.call('HMGET', config, 'epoch', 'state', 'per_user_max')
if settings[1] ~= ARGV[1] or settings[2] == 'draining' then return 'STALE_EPOCH' end
local record = redis.call('HGET', buyers, user)
local at = record and string.find('\n' .. record, '\n' .. id, 1, true)
if not at then return 'NOT_FOUND' end
local state = string.sub(record, at + 20, at + 20)
if state == 'c' then return 'ALREADY_CONFIRMED' end
if state == 'x' then return 'RELEASED' end
local items = string.match(record, '[^\n]*', at + 31)
local from = ':reserved'
if state == 'e' then
  from = ':available'
  local units = 0
  for line in string.gmatch(record, '[^\n]+') do
    local other = string.sub(line, 21, 21)
    if other == 'r' or other == 'c' or string.sub(line, 1, 20) == id then
      for quantity in string.gmatch(line, '%*(%d+)') do units = units + quantity end
    end
  end
  if units > tonumber(settings[3]) then return 'LIMIT_REACHED' end
  for sku, quantity in string.gmatch(items, '([^*,]+)%*(%d+)') do
    if tonumber(redis.call('HGET', stock, sku .. from)) < tonumber(quantity) then return 'SOLD_OUT' end
  end
end

-- … then write everything.
redis.call('HSET', buyers, user, string.sub(record, 1, at + 19) .. 'c' .. string.sub(record, at + 21))
for sku, quantity in string.gmatch(items, '([^*,]+)%*(%d+)') do
  redis.call('HINCRBY', stock, sku .. from, -quantity)
  redis.call('HINCRBY', stock, sku .. ':sold', quantity)
end
return 'RERESERVED'
