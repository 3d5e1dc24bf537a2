-- reserve: take units out of available for a batch of buyers. One atomic step.
-- KEYS  1 config  2 stock  3 buyers  4 orders  5 arrivals
-- ARGV  1 epoch  2 now_ms  3 columns  4 lines
-- `columns` is MessagePack, four arrays: user_ids, reservation_ids, wants, wishes. The first three
-- have one element per request; a wish is items ('sku*quantity,…'), a want the number of one, from 1.
-- `lines` says the same requests as `orders` keeps them: in a usual batch all are reserved, and it
-- goes there as it came. One packed string is taken apart in C; an argument each cost twice as much.
-- Returns  { reserved_until_s } if all were reserved, else { reserved_until_s, one reply per
--   request … }; a reply is
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
local epoch, now_ms = ARGV[1], tonumber(ARGV[2])
local BATCH_MAX = 512       -- Keeps unpack far below Lua's limit and a call below 3 ms.
local RECORDS_MAX = 16      -- Bounds a buyer's record, released reservations included.
local FIELDS_MAX = 4000     -- Per read: unpack takes no 8000, and a batch may name more unknown SKUs.
local users, ids, wants, texts = cmsgpack.unpack(ARGV[3])
local requests = #users
if requests < 1 or requests > BATCH_MAX or #ids ~= requests or #wants ~= requests then
  return redis.error_reply('ERR reserve takes 1 to 512 requests')
end

-- Check everything, …
local settings = redis.call('HMGET', config, 'epoch', 'state', 'opens_at_ms', 'closes_at_ms',
  'per_user_max', 'reservation_seconds')
if settings[1] ~= epoch or settings[2] == 'draining' then
  local replies = { 0 }
  for i = 1, requests do replies[i + 1] = 'STALE_EPOCH' end
  return replies
end
local shut
if settings[2] == 'closed' or now_ms >= tonumber(settings[4]) then shut = 'ENDED'
elseif now_ms < tonumber(settings[3]) then shut = 'NOT_STARTED'
elseif settings[2] == 'paused' then shut = 'PAUSED' end
local per_user_max = tonumber(settings[5])
local until_s = string.format('%010d', math.ceil(now_ms / 1000) + tonumber(settings[6]))

-- Each wish is parsed once, into pairs of a slot in `counters` (available there, reserved in the
-- next) and a quantity. One that the front should have refused, without items or with a SKU twice,
-- is false: it names no SKU that we sell.
local stock_fields, slots, slot_of = {}, 0, {}
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
  local _, _, only, quantity = string.find(text, '^([^*,]+)%*(%d+)$')
  if only then
    quantity = tonumber(quantity)
    return { slot_for(only), quantity, units = quantity }
  end
  local wish, named, size = { units = 0 }, {}, 0
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
local wishes, tails = {}, {}   -- a tail is what follows the id in the line of a record
for want = 1, #texts do
  wishes[want] = parse(texts[want])
  tails[want] = 'r' .. until_s .. texts[want]
end
local counters, left = {}, {}  -- as they are, and what is still available beside this batch
for from = 1, slots, FIELDS_MAX do
  local to = math.min(from + FIELDS_MAX - 1, slots)
  local values = redis.call('HMGET', stock, unpack(stock_fields, from, to))
  for i = 1, to - from + 1 do
    local count = tonumber(values[i]) or false
    counters[from + i - 1], left[from + i - 1] = count, count
  end
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
    if left[slot] < quantity then
      -- Units that others hold may come back; units that were never there cannot. What this batch
      -- took has only moved from one to the other.
      if counters[slot] + counters[slot + 1] < quantity then return 'SOLD_OUT' end
      short = 'ALL_RESERVED'
    end
  end
  return short
end

local records, size = {}, 0    -- user, record, user, record … to be written
local place = {}               -- user -> where; a user may stand in the batch more than once
local replies, refused = {}, 0 -- of those that are not reserved

local function decide(i)
  local user, id, want = users[i], ids[i], wants[i]
  local at, wish, reply = place[user], wishes[want], nil
  local record = at and records[at] or found[i]
  if record then
    local units, count, line = read(record, id)
    if line then reply = replay(line, texts[want])
    else reply = refusal(wish, count < RECORDS_MAX and per_user_max - units or -1) end
  else
    reply = refusal(wish, per_user_max)
  end
  if reply then
    replies[i], refused = reply, refused + 1
    return
  end
  for k = 1, #wish, 2 do left[wish[k]] = left[wish[k]] - wish[k + 1] end
  if not at then
    at = size + 2
    records[size + 1], place[user], size = user, at, at
  end
  records[at] = (record and record .. '\n' or '') .. id .. tails[want]
end

-- Most are a first request for one SKU that is there: such a wish has a slot and a number of units
-- here, and four comparisons let it through.
local slot_wanted, units_wanted = {}, {}
for want = 1, #texts do
  local wish = wishes[want]
  local plain = wish and #wish == 2 and counters[wish[1]] and not shut and wish.units <= per_user_max
  slot_wanted[want], units_wanted[want] = plain and wish[1], plain and wish.units
end
for i = 1, requests do
  local user, want = users[i], wants[i]
  local slot, units = slot_wanted[want], units_wanted[want]
  if slot and left[slot] >= units and not found[i] and not place[user] then
    left[slot] = left[slot] - units
    records[size + 1], records[size + 2] = user, ids[i] .. tails[want]
    size = size + 2
    place[user] = size
  else
    decide(i)
  end
end

-- … then write everything.
if refused < requests then
  local batch = ARGV[4]
  if refused > 0 then
    local lines = {}
    for i = 1, requests do
      if not replies[i] then
        lines[#lines + 1] = ids[i] .. ' ' .. users[i] .. ' ' .. texts[wants[i]]
      end
    end
    batch = table.concat(lines, '\n')
  end
  -- First, because it is the one call that an ACL may refuse.
  redis.call('SPUBLISH', arrivals, batch)
  redis.call('HSET', buyers, unpack(records, 1, size))
  local fields, count = {}, 0
  for slot = 1, slots, 2 do
    local available = left[slot]
    if available ~= counters[slot] then
      fields[count + 1], fields[count + 2] = stock_fields[slot], available
      fields[count + 3] = stock_fields[slot + 1]
      fields[count + 4] = counters[slot + 1] + counters[slot] - available
      count = count + 4
    end
  end
  if count > 0 then redis.call('HSET', stock, unpack(fields, 1, count)) end
  redis.call('XADD', orders, '*', 'until_s', until_s, 'at_ms', ARGV[2], 'batch', batch)
end
if refused == 0 then return { until_s } end
local answer = { until_s }
for i = 1, requests do answer[i + 1] = replies[i] or 'RESERVED' end
return answer
