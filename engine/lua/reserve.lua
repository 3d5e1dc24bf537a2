-- reserve: take units out of available for a batch of buyers. One atomic step.
-- KEYS  1 config  2 stock  3 buyers  4 orders  5 arrivals  6 used  7 room (the last two with tickets only)
-- ARGV  1 epoch  2 now_ms  3 columns  4 lines
-- `columns` is MessagePack, four arrays: user_ids, reservation_ids, wants, wishes. The first three
-- have one element per request; a wish is items ('sku*quantity,…'), a want the number of one, from 1.
-- `lines` says the same requests as `orders` keeps them: in a usual batch all are reserved, and it
-- goes there as it came. One packed string is taken apart in C; an argument each cost twice as much.
-- A fifth array, tickets, is there if a request of the batch came through a waiting room: the number
-- of a ticket whose turn has come, good for one reservation; 0: none is needed; -1: one is, and the
-- buyer has none, so he only gets an earlier answer again.
-- Returns  { reserved_until_s } if all were reserved, else { reserved_until_s, one reply per
--   request … }; a reply is
--   'RESERVED' | 'DUPLICATE <state> <reserved_until_s>' | 'MISMATCH' | 'SOLD_OUT' | 'ALL_RESERVED'
--   | 'LIMIT_REACHED' | 'NOT_STARTED' | 'ENDED' | 'PAUSED' | 'UNKNOWN_SKU' | 'STALE_EPOCH'
--   | 'TICKET_REQUIRED' | 'TICKET_USED'
--
-- A buyer's record is one line per reservation, in fixed columns:
--   1–20 reservation id   21 state (r c x e)   22–31 reserved_until_s   32… items
-- An entry of `orders` has the fields until_s, at_ms and batch: lines of 'id user items'.
-- The same lines go to the channel `arrivals`: fronts that answer refusals from memory learn there
-- who has a record. A sharded channel: its name carries the keys' hash tag, so in a cluster it
-- stays on this node, where PUBLISH would go to all.
local config, stock, buyers, orders, arrivals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local used, room = KEYS[6], KEYS[7]
local epoch, now_ms = ARGV[1], tonumber(ARGV[2])
local BATCH_MAX = 512       -- Keeps unpack far below Lua's limit and a call below 3 ms.
local RECORDS_MAX = 16      -- Bounds a buyer's record, released reservations included.
local FIELDS_MAX = 4000     -- Per read: unpack takes no 8000, and a batch may name more unknown SKUs.
local users, ids, wants, texts, tickets = cmsgpack.unpack(ARGV[3])
local requests = #users
if requests < 1 or requests > BATCH_MAX or #ids ~= requests or #wants ~= requests
    or tickets and #tickets ~= requests then
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

-- Each wish is read once. A usual one is for one SKU: its number and quantity stand in these tables.
-- Another, if it is sound, is in `carts`: pairs of such a number and a quantity. One that the front
-- should have refused, without items or with a SKU twice, is in neither: it names no SKU that we sell.
local sku_wanted, units_wanted, carts = {}, {}, {}
local names, skus, number_of = {}, 0, {}
local function number_for(name)
  local number = number_of[name]
  if not number then
    number = skus + 1
    skus, number_of[name], names[number] = number, number, name
  end
  return number
end
local function read_cart(text)
  local cart, named, size = { units = 0 }, {}, 0
  for name, quantity in string.gmatch(text, '([^*,]+)%*(%d+)') do
    if named[name] then return nil end
    named[name] = true
    quantity = tonumber(quantity)
    cart.units = cart.units + quantity
    cart[size + 1], cart[size + 2] = number_for(name), quantity
    size = size + 2
  end
  return size > 0 and cart or nil
end
local find, sub = string.find, string.sub
local quantities = {}          -- Few differ, and to make a number of a text is dear.
for want = 1, #texts do
  local text = texts[want]
  local star = find(text, '*', 2, true)
  local digits = star and sub(text, star + 1)
  local quantity = quantities[digits or '']
  if quantity == nil then
    quantity = digits and find(digits, '^%d+$') and tonumber(digits) or false
    quantities[digits or ''] = quantity
  end
  local name = quantity and sub(text, 1, star - 1)
  if name and not find(name, ',', 1, true) then
    sku_wanted[want], units_wanted[want] = number_for(name), quantity
  else
    sku_wanted[want], units_wanted[want], carts[want] = false, 0, read_cart(text)
  end
end

-- Of each SKU two counters: all that are available, then all that are reserved.
local fields, values = {}, {}
for number = 1, skus do fields[number] = names[number] .. ':available' end
for number = 1, skus do fields[skus + number] = names[number] .. ':reserved' end
for from = 1, 2 * skus, FIELDS_MAX do
  local to = math.min(from + FIELDS_MAX - 1, 2 * skus)
  local part = redis.call('HMGET', stock, unpack(fields, from, to))
  if to == 2 * skus and from == 1 then values = part
  else for i = 1, to - from + 1 do values[from + i - 1] = part[i] end end
end
local available, taken = {}, {}  -- taken: by this batch
for number = 1, skus do
  available[number] = values[skus + number] and tonumber(values[number]) or false
  taken[number] = 0
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

-- A wish as a cart, whether it was for one SKU or several; nil if it is not sound.
local function cart_of(want)
  local number, units = sku_wanted[want], units_wanted[want]
  if number then return { number, units, units = units } end
  return carts[want]
end

-- Why a cart of which the buyer may have so many units cannot be reserved; nil if it can.
local function refusal(cart, units_max)
  if shut then return shut end
  if not cart then return 'UNKNOWN_SKU' end
  for i = 1, #cart, 2 do
    if not available[cart[i]] then return 'UNKNOWN_SKU' end
  end
  if cart.units > units_max then return 'LIMIT_REACHED' end
  local short
  for i = 1, #cart, 2 do
    local number, quantity = cart[i], cart[i + 1]
    if available[number] - taken[number] < quantity then
      -- Units that others hold may come back; units that were never there cannot. What this batch
      -- took has only moved from one counter to the other.
      if available[number] + tonumber(values[skus + number]) < quantity then return 'SOLD_OUT' end
      short = 'ALL_RESERVED'
    end
  end
  return short
end

-- One look at all numbers of the batch. `seen` is a table of those that are used up; `aside` says who
-- cannot be let through without a closer look.
local seen, aside = nil, found
if tickets then
  seen, aside = {}, {}
  local gets, first, size, bits = {}, {}, 0, nil
  for i = 1, requests do
    local ticket = tickets[i]
    aside[i] = found[i] or ticket < 0 or first[ticket]
    if ticket > 0 and not first[ticket] then
      gets[size + 1], gets[size + 2], gets[size + 3] = 'GET', 'u1', ticket
      size = size + 3
      first[ticket] = i
    end
  end
  if size > 0 then bits = redis.call('BITFIELD_RO', used, unpack(gets)) end
  for bit = 1, size / 3 do
    local ticket = gets[3 * bit]
    if bits[bit] == 1 then seen[ticket], aside[first[ticket]] = true, true end
  end
end

-- Why a ticket lets nobody in; nil if it does, or none is needed.
local function ticket_refusal(ticket)
  if shut then return shut end
  if ticket < 0 then return 'TICKET_REQUIRED' end
  return ticket > 0 and seen[ticket] and 'TICKET_USED' or nil
end

local records, size = {}, 0    -- user, record, user, record … to be written
local place = {}               -- user -> where; a user may stand in the batch more than once
local replies, refused = {}, 0 -- of those that are not reserved

local reserved = 'r' .. until_s

local function decide(i)
  local user, id, text = users[i], ids[i], texts[wants[i]]
  local at, cart, reply = place[user], cart_of(wants[i]), nil
  local record = at and records[at] or found[i]
  if record then
    local units, count, line = read(record, id)
    if line then reply = replay(line, text)
    else reply = tickets and ticket_refusal(tickets[i])
      or refusal(cart, count < RECORDS_MAX and per_user_max - units or -1) end
  else
    reply = tickets and ticket_refusal(tickets[i]) or refusal(cart, per_user_max)
  end
  if reply then
    replies[i], refused = reply, refused + 1
    return
  end
  for k = 1, #cart, 2 do taken[cart[k]] = taken[cart[k]] + cart[k + 1] end
  if not at then
    at = size + 2
    records[size + 1], place[user], size = user, at, at
  end
  records[at] = (record and record .. '\n' or '') .. id .. reserved .. text
  if tickets then seen[tickets[i]] = true end
end

-- Most are a first request for one SKU that is there: a few comparisons let them through.
local plain = {}               -- the SKU of such a wish
for want = 1, #texts do
  local number = sku_wanted[want]
  plain[want] = not shut and number and available[number] and units_wanted[want] <= per_user_max
    and number
end
for i = 1, requests do
  local user, want = users[i], wants[i]
  local number = plain[want]
  local sum = number and taken[number] + units_wanted[want]
  if number and sum <= available[number] and not aside[i] and not place[user] then
    taken[number] = sum
    records[size + 1], records[size + 2] = user, ids[i] .. reserved .. texts[want]
    size = size + 2
    place[user] = size
    if tickets then seen[tickets[i]] = true end
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
  local counters, count = {}, 0
  for number = 1, skus do
    local units = taken[number]
    if units > 0 then
      counters[count + 1], counters[count + 2] = fields[number], available[number] - units
      counters[count + 3] = fields[skus + number]
      counters[count + 4] = values[skus + number] + units
      count = count + 4
    end
  end
  if count > 0 then redis.call('HSET', stock, unpack(counters, 1, count)) end
  redis.call('XADD', orders, '*', 'until_s', until_s, 'at_ms', ARGV[2], 'batch', batch)
end
if tickets and refused < requests then
  local sets, size, count, units = {}, 0, 0, 0
  for i = 1, requests do
    if tickets[i] > 0 and not replies[i] then
      local want = wants[i]
      sets[size + 1], sets[size + 2], sets[size + 3], sets[size + 4] = 'SET', 'u1', tickets[i], 1
      size, count = size + 4, count + 1
      units = units + (sku_wanted[want] and units_wanted[want] or carts[want].units)
    end
  end
  if count > 0 then
    redis.call('BITFIELD', used, unpack(sets))
    redis.call('HINCRBY', room, 'used', count)
    redis.call('HINCRBY', room, 'used_units', units)
  end
end
if refused == 0 then return { until_s } end
local answer = { until_s }
for i = 1, requests do answer[i + 1] = replies[i] or 'RESERVED' end
return answer
