-- reserve: take units out of available for a batch of buyers. One atomic step.
-- KEYS  1 config  2 stock  3 buyers  4 orders
-- ARGV  1 epoch  2 now_ms  3… triples: user_id, reservation_id, items ('sku*quantity,…')
-- Returns  { reserved_until_s, one reply per triple … }; a reply is
--   'RESERVED' | 'DUPLICATE <state> <reserved_until_s>' | 'MISMATCH' | 'SOLD_OUT' | 'ALL_RESERVED'
--   | 'LIMIT_REACHED' | 'NOT_STARTED' | 'ENDED' | 'PAUSED' | 'UNKNOWN_SKU' | 'STALE_EPOCH'
--
-- A buyer's record is one line per reservation, in fixed columns:
--   1–20 reservation id   21 state (r c x e)   22–31 reserved_until_s   32… items
-- An entry of `orders` has the fields until_s, at_ms and batch: lines of 'id user items'.
local config, stock, buyers, orders = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch, now_ms = ARGV[1], tonumber(ARGV[2])
local BATCH_MAX = 512       -- Keeps unpack far below Lua's limit and a call below 3 ms.
local RECORDS_MAX = 16      -- Bounds a buyer's record, released reservations included.
local FIELDS_MAX = 4000     -- Per read: unpack takes no 8000, and a batch may name more unknown SKUs.
local requests = (#ARGV - 2) / 3
if requests < 1 or requests > BATCH_MAX or requests % 1 ~= 0 then
  return redis.error_reply('ERR reserve takes 1 to 512 triples')
end

-- Check everything, …
local settings = redis.call('HMGET', config, 'epoch', 'state', 'opens_at_ms', 'closes_at_ms',
  'per_user_max', 'reservation_seconds')
local replies = { 0 }
if settings[1] ~= epoch or settings[2] == 'draining' then
  for i = 1, requests do replies[i + 1] = 'STALE_EPOCH' end
  return replies
end
local shut
if settings[2] == 'closed' or now_ms >= tonumber(settings[4]) then shut = 'ENDED'
elseif now_ms < tonumber(settings[3]) then shut = 'NOT_STARTED'
elseif settings[2] == 'paused' then shut = 'PAUSED' end
local per_user_max = tonumber(settings[5])
local until_s = string.format('%010d', math.ceil(now_ms / 1000) + tonumber(settings[6]))
replies[1] = until_s

-- Most buyers of a batch want the same things, so each wish is parsed once. One that the front
-- should have refused, without items or with a SKU twice, is false: it names no SKU that we sell.
local wishes, stock_fields, slot_of = {}, {}, {}
local function parse(text)
  local wish, named = { units = 0 }, {}
  for sku, quantity in string.gmatch(text, '([^*,]+)%*(%d+)') do
    quantity = tonumber(quantity)
    if named[sku] then
      wish = false
      break
    end
    named[sku] = true
    wish.units = wish.units + quantity
    wish[#wish + 1] = sku
    wish[#wish + 1] = quantity
    if not slot_of[sku] then
      slot_of[sku] = #stock_fields + 1
      stock_fields[#stock_fields + 1] = sku .. ':available'
      stock_fields[#stock_fields + 1] = sku .. ':reserved'
    end
  end
  wishes[text] = wish and #wish > 0 and wish
end
local users = {}
for i = 1, requests do
  users[i] = ARGV[3 * i]
  local text = ARGV[3 * i + 2]
  if wishes[text] == nil then parse(text) end
end
local counters = {}
for from = 1, #stock_fields, FIELDS_MAX do
  local to = math.min(from + FIELDS_MAX - 1, #stock_fields)
  local values = redis.call('HMGET', stock, unpack(stock_fields, from, to))
  for i = 1, #values do counters[from + i - 1] = tonumber(values[i]) or false end
end
local found = redis.call('HMGET', buyers, unpack(users))
local records = {}  -- user -> record; a user may stand in the batch more than once
for i = 1, requests do
  if found[i] then records[users[i]] = found[i] end
end

local STATES = { r = 'reserved', c = 'confirmed', x = 'released', e = 'expired' }

-- Units the buyer holds, number of reservations, and the line with this id, if any.
local function read(record, id)
  local units, count = 0, 0
  for line in string.gmatch(record, '[^\n]+') do
    if string.sub(line, 1, 20) == id then return 0, 0, line end
    local state = string.sub(line, 21, 21)
    count = count + 1
    if state == 'r' or state == 'c' then
      for quantity in string.gmatch(line, '%*(%d+)') do units = units + quantity end
    end
  end
  return units, count
end

local function decide(user, id, text)
  local record, wish = records[user], wishes[text]
  local units, count, line = 0, 0, nil
  if record then units, count, line = read(record, id) end
  if line then
    if string.sub(line, 32) ~= text then return 'MISMATCH' end
    return 'DUPLICATE ' .. STATES[string.sub(line, 21, 21)] .. ' ' .. string.sub(line, 22, 31)
  end
  if shut then return shut end
  if not wish then return 'UNKNOWN_SKU' end
  for i = 1, #wish, 2 do
    if not counters[slot_of[wish[i]]] then return 'UNKNOWN_SKU' end
  end
  if count >= RECORDS_MAX or units + wish.units > per_user_max then return 'LIMIT_REACHED' end
  local short
  for i = 1, #wish, 2 do
    local slot, quantity = slot_of[wish[i]], wish[i + 1]
    if counters[slot] < quantity then
      -- Units that others hold may come back; units that were never there cannot.
      if counters[slot] + counters[slot + 1] < quantity then return 'SOLD_OUT' end
      short = 'ALL_RESERVED'
    end
  end
  return short or 'RESERVED'
end

local changed, lines = {}, {}
for i = 1, requests do
  local user, id, text = users[i], ARGV[3 * i + 1], ARGV[3 * i + 2]
  local reply = decide(user, id, text)
  replies[i + 1] = reply
  if reply == 'RESERVED' then
    local wish = wishes[text]
    for k = 1, #wish, 2 do
      local slot = slot_of[wish[k]]
      counters[slot] = counters[slot] - wish[k + 1]
      counters[slot + 1] = counters[slot + 1] + wish[k + 1]
    end
    local line = id .. 'r' .. until_s .. text
    records[user] = records[user] and (records[user] .. '\n' .. line) or line
    changed[user] = true
    lines[#lines + 1] = id .. ' ' .. user .. ' ' .. text
  end
end

-- … then write everything.
if #lines > 0 then
  local fields = {}
  for user in pairs(changed) do
    fields[#fields + 1] = user
    fields[#fields + 1] = records[user]
  end
  redis.call('HSET', buyers, unpack(fields))
  local moved = {}
  for slot = 1, #stock_fields do
    if counters[slot] then
      moved[#moved + 1] = stock_fields[slot]
      moved[#moved + 1] = counters[slot]
    end
  end
  redis.call('HSET', stock, unpack(moved))
  redis.call('XADD', orders, '*', 'until_s', until_s, 'at_ms', ARGV[2],
    'batch', table.concat(lines, '\n'))
end
return replies
