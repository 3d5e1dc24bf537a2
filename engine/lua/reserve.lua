-- reserve: take units out of available for a batch of buyers. One atomic step.
-- KEYS  1 config  2 stock  3 buyers  4 orders  5 arrivals
-- ARGV  1 epoch  2 now_ms  3… triples: user_id, reservation_id, items ('sku*quantity,…')
-- Returns  { reserved_until_s, one reply per triple … }; a reply is
--   'RESERVED' | 'DUPLICATE <state> <reserved_until_s>' | 'MISMATCH' | 'SOLD_OUT' | 'ALL_RESERVED'
--   | 'LIMIT_REACHED' | 'NOT_STARTED' | 'ENDED' | 'PAUSED' | 'UNKNOWN_SKU' | 'STALE_EPOCH'
--
-- A buyer's record is one line per reservation, in fixed columns:
--   1–20 reservation id   21 state (r c x e)   22–31 reserved_until_s   32… items
-- An entry of `orders` has the fields until_s, at_ms and batch: lines of 'id user items'.
-- The same lines go to the channel `arrivals`: fronts that answer refusals from memory learn there
-- who has a record. A sharded channel: its name carries the keys' hash tag, so in a cluster it
-- stays on this node, where PUBLISH would go to all.
local config, stock, buyers, orders, arrivals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ARGV = ARGV           -- A local is read faster than a global, and this one often.
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

-- Most buyers of a batch want the same things, so each wish is parsed once, into pairs of a slot in
-- `counters` (available there, reserved in the next) and a quantity. One that the front should have
-- refused, without items or with a SKU twice, is false: it names no SKU that we sell.
local wishes, stock_fields, slots, slot_of = {}, {}, 0, {}
local function slot_for(sku)
  local slot = slot_of[sku]
  if not slot then
    slot = slots + 1
    slots = slots + 2
    slot_of[sku] = slot
    stock_fields[slot] = sku .. ':available'
    stock_fields[slot + 1] = sku .. ':reserved'
  end
  return slot
end
local function parse(text)
  local _, _, only, units = string.find(text, '^([^*,]+)%*(%d+)$')
  if only then
    units = tonumber(units)
    return { slot_for(only), units, units = units }
  end
  local wish, named, size = { units = 0, several = true }, {}, 0
  for sku, quantity in string.gmatch(text, '([^*,]+)%*(%d+)') do
    if named[sku] then return false end
    named[sku] = true
    quantity = tonumber(quantity)
    wish.units = wish.units + quantity
    wish[size + 1], wish[size + 2] = slot_for(sku), quantity
    size = size + 2
  end
  return size > 0 and wish
end
local users = {}
for i = 1, requests do
  users[i] = ARGV[3 * i]
  local text = ARGV[3 * i + 2]
  if wishes[text] == nil then wishes[text] = parse(text) end
end
local counters = {}
for from = 1, slots, FIELDS_MAX do
  local to = math.min(from + FIELDS_MAX - 1, slots)
  local values = redis.call('HMGET', stock, unpack(stock_fields, from, to))
  for i = 1, to - from + 1 do counters[from + i - 1] = tonumber(values[i]) or false end
end
local found = redis.call('HMGET', buyers, unpack(users))

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

-- What to tell a buyer who has a record and asks with a known reservation id.
local function replay(line, text)
  if string.sub(line, 32) ~= text then return 'MISMATCH' end
  return 'DUPLICATE ' .. STATES[string.sub(line, 21, 21)] .. ' ' .. string.sub(line, 22, 31)
end

-- Why a wish of which the buyer may have so many units cannot be reserved; nil if it can.
local function refusal(wish, units_max)
  if shut then return shut end
  if not wish then return 'UNKNOWN_SKU' end
  local size = #wish
  for i = 1, size, 2 do
    if not counters[wish[i]] then return 'UNKNOWN_SKU' end
  end
  if wish.units > units_max then return 'LIMIT_REACHED' end
  local short
  for i = 1, size, 2 do
    local slot, quantity = wish[i], wish[i + 1]
    if counters[slot] < quantity then
      -- Units that others hold may come back; units that were never there cannot.
      if counters[slot] + counters[slot + 1] < quantity then return 'SOLD_OUT' end
      short = 'ALL_RESERVED'
    end
  end
  return short
end

local moved = {}               -- the slots of SKUs whose counters changed
local function take(slot, quantity)
  counters[slot] = counters[slot] - quantity
  counters[slot + 1] = counters[slot + 1] + quantity
  moved[slot] = true
end

local records, size = {}, 0    -- user, record, user, record … to be written
local place = {}               -- user -> where; a user may stand in the batch more than once
local lines, accepted = {}, 0
local reserved = 'r' .. until_s
for i = 1, requests do
  local user, id, text = users[i], ARGV[3 * i + 1], ARGV[3 * i + 2]
  local at, wish, reply = place[user], wishes[text], nil
  local record = at and records[at] or found[i]
  -- Most are a first request for one SKU that is there: they are let through by four comparisons.
  if record then
    local units, count, line = read(record, id)
    if line then reply = replay(line, text)
    else reply = refusal(wish, count < RECORDS_MAX and per_user_max - units or -1) end
  elseif shut or not wish or wish.several or wish.units > per_user_max
    or (counters[wish[1]] or -1) < wish.units then
    reply = refusal(wish, per_user_max)
  end
  replies[i + 1] = reply or 'RESERVED'
  if not reply then
    take(wish[1], wish[2])
    if wish.several then
      for k = 3, #wish, 2 do take(wish[k], wish[k + 1]) end
    end
    local line = id .. reserved .. text
    if at then
      records[at] = record .. '\n' .. line
    else
      at = size + 2
      records[size + 1], records[at] = user, record and (record .. '\n' .. line) or line
      place[user], size = at, at
    end
    accepted = accepted + 1
    lines[accepted] = id .. ' ' .. user .. ' ' .. text
  end
end

-- … then write everything.
if size > 0 then
  local batch = table.concat(lines, '\n')
  -- First, because it is the one call that an ACL may refuse.
  redis.call('SPUBLISH', arrivals, batch)
  redis.call('HSET', buyers, unpack(records, 1, size))
  local fields, count = {}, 0
  for slot in pairs(moved) do
    fields[count + 1], fields[count + 2] = stock_fields[slot], counters[slot]
    fields[count + 3], fields[count + 4] = stock_fields[slot + 1], counters[slot + 1]
    count = count + 4
  end
  redis.call('HSET', stock, unpack(fields, 1, count))
  redis.call('XADD', orders, '*', 'until_s', until_s, 'at_ms', ARGV[2], 'batch', batch)
end
return replies
