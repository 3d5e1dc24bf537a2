-- serve: let the next people of a waiting room try to buy, and say how the room stands. One atomic step.
-- KEYS  1 config  2 stock  3 orders  4 room  5 present  6 passed  7 used  8… attendance (18)
-- ARGV  1 pace (people/s, of all who call together; '': only look, no turn)  2 known_issued  3 known_serving
--       4 known_drawn (-1: not yet)  5 now_ms ('': the clock of Redis)
-- Returns  { now_ms, revision, on, order, issued, serving, drawn, seed, rate, admitted, used, available,
--   reserved, sold, opens_at_ms, closes_at_ms, state, waiting, mark, lapsed }, or nothing if Redis does
--   not know the room, or it is only looked at and never had a turn. What is not known is an empty text.
--   `lapsed`: up to this place all were served so long ago that their time to reserve is over.
--
-- Whoever calls turns the crank; time passes once for all. A turn serves places in order: as many
-- people as the pace grants for the time since the last one, and no more than the units that are left
-- may need. A place whose holder is absent is passed for nothing, and noted: attend.lua counts him as
-- admitted if he comes back. What callers know heals what Redis lost: numbers never go back.
--
-- The stock rule: so many people may be undecided as `over_admission` times the buyers whom the
-- available units are enough for. Undecided are those admitted in the time to reserve who have not
-- reserved, but no more than all admitted, each weighed by exp(-age / patience): most who buy do so
-- soon, and those who do not are not to hold up the rest until their time is over. Who reserves late
-- is served all the same: reserve.lua goes by the ticket and the stock, not by this estimate.
local config, stock, orders, room, present = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local passed, used = KEYS[6], KEYS[7]
local SLOTS = 18
local ATTENDANCE = { KEYS[8], unpack(KEYS, 9, 7 + SLOTS) }
local TURN_MS = 50           -- Between two turns at least, however many fronts call.
local STEP_MS_MAX = 1000     -- Time that one turn makes up for: no flood after a pause or a clock step.
local SKIP_FACTOR, SKIP_FREE = 4, 1024 -- Places per turn: so many times the pace, and some more. The last
                             -- units are not to wait for minutes behind a crowd that left.
local PLACES_MAX = 65536     -- Places per turn: 8 KiB of bitmap per look.
local BACKLOG_MAX = 10000    -- Entries of the stream: nobody drains it. Usually there are below a hundred.
local ATTENDED_MS_MAX = 20000 -- Older attendance says nothing: everybody counts as present.
local KEPT_MS = 259200000    -- Three days after the sale, or the last turn: then Redis forgets the room.
local HISTORY_PARTS = 16     -- Into which the time to reserve is cut.
local TICKET_MS = 300000     -- Who was served may learn of it so late: a ticket is good for so long.
local PATIENCE_PARTS = 5     -- The patience is so small a part of the time to reserve: 24 s of 120. In the
                             -- simulation an 8th lets in three times as many who then find nothing.
local FIELDS = { 'revision', 'on', 'order', 'pace_max', 'over_admission', 'admission_seconds', 'issued',
  'serving', 'drawn', 'opened_ms', 'turned_ms', 'carry', 'admitted', 'used', 'used_units', 'mark',
  'attended_ms', 'history', 'deciding', 'available', 'reserved', 'sold', 'rate', 'waiting', 'seed',
  'served', 'lapsed' }
local function whole(number) return string.format('%.0f', number) end

local now_ms = tonumber(ARGV[5])
if not now_ms then
  local time = redis.call('TIME')
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Check everything, …
local known, values = {}, redis.call('HMGET', room, unpack(FIELDS))
for i, name in ipairs(FIELDS) do known[name] = values[i] end
local function number(name) return tonumber(known[name] or 0) end
local sale = redis.call('HMGET', config, 'state', 'opens_at_ms', 'closes_at_ms')
local serving = math.max(number('serving'), tonumber(ARGV[3]))
local issued = math.max(number('issued'), tonumber(ARGV[2]), serving)
local drawn = tonumber(known.drawn) or ARGV[4] ~= '-1' and tonumber(ARGV[4]) or nil
local healed = issued > number('issued') or serving > number('serving') or drawn and not known.drawn

local passed_ms = now_ms - (tonumber(known.turned_ms) or 0)
local looks = ARGV[1] == ''
local turn = known.revision and not looks and (passed_ms < 0 or passed_ms >= TURN_MS)
local changes = {}
local function change(...)
  for _, value in ipairs({ ... }) do changes[#changes + 1] = value end
end
if healed then
  change('issued', issued, 'serving', serving)
  if drawn then change('drawn', drawn) end
end

local mark, opening = number('mark'), false
if math.abs(now_ms - number('attended_ms')) > ATTENDED_MS_MAX then mark = 0 end
local available, reserved, sold = number('available'), number('reserved'), number('sold')
local rate, waiting, admitted = number('rate'), number('waiting'), number('admitted')
local lapsed = number('lapsed')

-- People in the places after one and up to another.
local function people(after, last)
  local count, judged = 0, math.min(last, mark)
  if judged > after then
    count = redis.call('BITCOUNT', present, after + 1, judged, 'BIT')
  end
  return count + math.max(0, last - math.max(mark, after))
end

local function count_stock()
  available, reserved, sold = 0, 0, 0
  local counters = redis.call('HGETALL', stock)
  for i = 1, #counters, 2 do
    local kind, units = string.sub(counters[i], -5), tonumber(counters[i + 1])
    if kind == ':sold' then sold = sold + units
    elseif kind == 'erved' then reserved = reserved + units
    else available = available + units end
  end
end

-- What was true at the beginnings of the last parts, oldest first, each with its time in front. They
-- reach back to `window_ms` ago with the first, or the room is not that old.
local function read_history(name, window_ms, now)
  local history = known[name] and cmsgpack.unpack(known[name]) or {}
  for i = 1, #history do
    -- The clock was set back: what seems still to come is taken for the present.
    if history[i][1] > now_ms then history[i][1] = now_ms end
  end
  while history[2] and history[2][1] <= now_ms - window_ms do table.remove(history, 1) end
  local last = history[#history]
  if not last or now_ms - last[1] >= window_ms / HISTORY_PARTS then history[#history + 1] = now end
  return history
end

-- How many more people the units that are left are enough for, by the stock rule. `deciding` is the
-- weight of all who were admitted.
local function people_wanted(history, deciding)
  if available <= 0 then return 0 end
  local undecided = admitted - history[1][2] - (number('used') - history[1][3])
  local take = number('used') > 0 and math.max(1, number('used_units') / number('used')) or 1
  undecided = math.max(0, math.min(undecided, deciding))
  -- To the nearest person: the last unit waits for half a doubt, not for the last of it.
  return math.floor(math.ceil(number('over_admission') * available / take) - undecided + 0.5)
end

-- The last place to serve so that no more than so many people are.
local function last_place(count, last)
  if people(serving, last) <= count then return last end
  local fits, too_far = serving, last
  while too_far - fits > 1 do
    local middle = math.floor((fits + too_far) / 2)
    if people(serving, middle) <= count then fits = middle else too_far = middle end
  end
  return fits
end

-- Those of the places after one and up to another whose holders are absent, as `passed` notes them.
local function absent_bytes(after, last)
  local first_byte, last_byte = math.floor((after + 1) / 8), math.floor(last / 8)
  local there = redis.call('GETRANGE', present, first_byte, last_byte)
  local noted = redis.call('GETRANGE', passed, first_byte, last_byte)
  local bytes = {}
  for at = first_byte, last_byte do
    local i = at - first_byte + 1
    local absent = bit.band(bit.bnot(string.byte(there, i) or 0), 0xFF)
    if at == first_byte then absent = bit.band(absent, bit.rshift(0xFF, (after + 1) % 8)) end
    if at == last_byte then absent = bit.band(absent, bit.lshift(0xFF, 7 - last % 8)) end
    bytes[i] = string.char(bit.bor(absent, string.byte(noted, i) or 0))
  end
  return { first_byte, table.concat(bytes) }
end

local absent
if turn then
  if known.on == '1' and sale[2] and now_ms >= tonumber(sale[2]) and not known.opened_ms then
    change('opened_ms', whole(now_ms))
    if known.order == 'draw' and not drawn then
      drawn, opening, mark = issued, true, 0
      change('drawn', drawn)
    end
  end
  count_stock()
  local seconds = math.min(math.max(passed_ms, 0), STEP_MS_MAX) / 1000
  if not known.turned_ms then seconds = 0 end
  local window_ms = number('admission_seconds') * 1000
  local history = read_history('history', window_ms, { now_ms, admitted, number('used') })
  local lapse_ms = window_ms + TICKET_MS
  local earlier = read_history('served', lapse_ms, { now_ms, serving })
  if earlier[1][1] <= now_ms - lapse_ms then lapsed = math.max(lapsed, earlier[1][2]) end
  local aged = math.exp(-math.max(passed_ms, 0) * PATIENCE_PARTS / window_ms)
  local deciding = number('deciding') * aged
  local open = known.on == '1' and sale[1] == 'open' and now_ms >= tonumber(sale[2])
    and now_ms < tonumber(sale[3]) and redis.call('XLEN', orders) <= BACKLOG_MAX
  rate = open and available > 0 and tonumber(ARGV[1]) or 0
  if number('pace_max') > 0 then rate = math.min(rate, number('pace_max')) end
  local budget = number('carry') + rate * seconds
  local count = math.floor(math.min(budget, people_wanted(history, deciding)))
  if rate > 0 and count >= 1 and serving < issued then
    local places = math.min(PLACES_MAX, math.ceil(SKIP_FACTOR * rate * seconds) + SKIP_FREE)
    local place = last_place(count, math.min(issued, serving + places))
    local served = people(serving, place)
    if served < place - serving then absent = absent_bytes(serving, math.min(place, mark)) end
    serving, admitted, budget = place, admitted + served, budget - served
    deciding = deciding + served
  end
  waiting = people(serving, issued)
  -- What nobody was there to take is not saved up.
  change('turned_ms', whole(now_ms), 'carry', string.format('%.6f', math.min(budget, 1)),
    'serving', serving, 'admitted', admitted, 'available', available, 'reserved', reserved,
    'sold', sold, 'rate', string.format('%.3f', rate), 'waiting', waiting,
    'history', cmsgpack.pack(history), 'deciding', string.format('%.3f', deciding),
    'served', cmsgpack.pack(earlier), 'lapsed', lapsed)
end

-- … then write everything.
if opening then
  -- What was noted by number says nothing of the places that were drawn.
  redis.call('UNLINK', present, passed, unpack(ATTENDANCE))
  redis.call('HDEL', room, 'period', 'attended_ms', 'begun', 'before', 'mark')
end
if #changes > 0 then redis.call('HSET', room, unpack(changes)) end
if absent then redis.call('SETRANGE', passed, absent[1], absent[2]) end
if turn and sale[3] then
  local kept_ms = whole(math.max(0, sale[3] - now_ms) + KEPT_MS)
  redis.call('PEXPIRE', room, kept_ms)
  redis.call('PEXPIRE', used, kept_ms)
  redis.call('PEXPIRE', passed, kept_ms)
end
if not known.revision or looks and not known.turned_ms then return false end
return { whole(now_ms), known.revision, known.on, known.order, issued, serving, drawn or '',
  drawn and known.seed or '', string.format('%.3f', rate), admitted, number('used'), available, reserved,
  sold, sale[2] or '', sale[3] or '', sale[1] or '', waiting, mark, lapsed }
