-- enter: give people their numbers in a sale's waiting room, one each. One atomic step.
-- KEYS  1 config  2 room  3 tickets  4 used  5… attendance (18)  23… proofs of this call
-- ARGV  1 now_ms ('': the clock of Redis)  2 known_issued  3… quintuples: user_id, holds_ticket (1 or 0),
--       number (of the ticket held; not held: one of his that lapsed; 0: none), proof (which of the
--       proofs, from 1; 0: none was asked for), proof_ms (until it expires)
-- Returns  one reply per person: 'ENTERED <number>' | 'KEPT <number>' | 'ROOM_OFF' | 'TOO_EARLY'
--   | 'ENDED' | 'PROOF_USED' | 'FULL' | 'NO_ROOM' (Redis knows the sale or its room not, or no more)
--
-- A number is kept while its holder may come back to it: entered or polled a short while ago, holds a
-- ticket that is still good, or was drawn. One that was used to reserve, or whose time to do so is over,
-- is not: the next is a new one. A ticket that is good keeps its number also where Redis lost it.
-- A proof is good for one number; it is remembered until it expires.
local config, room, tickets, used = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ENTER_MAX = 256        -- Keeps unpack within Lua's limit and a call below 3 ms.
local TICKETS_MAX = 16777216 -- The room's bitmaps are 2 MiB each at most.
-- Who loses the ticket may come back for so long: while a ticket is good whose last poll no front could
-- note yet. Else its holder would have two numbers.
local RETURN_MS = 330000
local KEPT_MS = 86400000     -- After the sale: it may be extended. Then Redis forgets who had a number.
local SLOTS = 18
local ATTENDANCE = { KEYS[5], unpack(KEYS, 6, 4 + SLOTS) }
local PROOFS = { KEYS[23], unpack(KEYS, 24) }
local people = (#ARGV - 2) / 5
if people < 1 or people > ENTER_MAX or people % 1 ~= 0 then
  return redis.error_reply('ERR enter takes 1 to 256 people')
end
local now_ms = tonumber(ARGV[1])
if not now_ms then
  local time = redis.call('TIME')
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Check everything, …
local settings = redis.call('HMGET', room, 'revision', 'on', 'prequeue_seconds', 'issued', 'drawn')
local sale = redis.call('HMGET', config, 'state', 'opens_at_ms', 'closes_at_ms')
local shut
if not settings[1] or not sale[2] then shut = 'NO_ROOM'
elseif settings[2] ~= '1' then shut = 'ROOM_OFF'
elseif sale[1] == 'closed' or now_ms >= tonumber(sale[3]) then shut = 'ENDED'
elseif now_ms < sale[2] - settings[3] * 1000 then shut = 'TOO_EARLY' end
local replies = {}
if shut then
  for i = 1, people do replies[i] = shut end
  return replies
end
local users = {}
for i = 1, people do users[i] = ARGV[5 * i - 2] end
local found = redis.call('HMGET', tickets, unpack(users))
local issued = math.max(tonumber(settings[4] or 0), tonumber(ARGV[2]))
local drawn = tonumber(settings[5] or 0)

-- After a draw the bits are places, which those drawn cannot be looked up by: they keep theirs anyway.
local function has_polled(number)
  for slot = 1, SLOTS do
    local attendance = ATTENDANCE[slot]
    if redis.call('GETBIT', attendance, number) == 1 then return true end
  end
  return false
end
local function kept(record, holds_ticket, his)
  local number, issued_ms = string.match(record, '^(%d+) (%d+)$')
  number = tonumber(number)
  if not holds_ticket and number == his then return nil end
  if redis.call('GETBIT', used, number) == 1 then return nil end
  if holds_ticket or number <= drawn or now_ms - issued_ms < RETURN_MS or has_polled(number) then
    return number
  end
  return nil
end

local given, claimed, records, proofs = {}, {}, {}, {}
local function note(user, number)
  given[user], issued = number, math.max(issued, number)
  records[#records + 1] = user
  records[#records + 1] = number .. ' ' .. string.format('%.0f', now_ms)
end
local function is_lost(number)
  return number > 0 and number <= TICKETS_MAX and redis.call('GETBIT', used, number) == 0
end
local function decide(i)
  local user, holds_ticket, his = users[i], ARGV[5 * i - 1] == '1', tonumber(ARGV[5 * i])
  local number = given[user] or found[i] and kept(found[i], holds_ticket, his)
  if number then
    given[user] = number
    return 'KEPT ' .. number
  end
  if not found[i] and holds_ticket and is_lost(his) then
    note(user, his)
    return 'KEPT ' .. his
  end
  if issued >= TICKETS_MAX then return 'FULL' end
  local which = tonumber(ARGV[5 * i + 1])
  if which > 0 then
    local proof = PROOFS[which]
    if claimed[proof] or redis.call('EXISTS', proof) == 1 then return 'PROOF_USED' end
    claimed[proof] = true
    proofs[#proofs + 1] = { proof, ARGV[5 * i + 2] }
  end
  note(user, issued + 1)
  return 'ENTERED ' .. issued
end
for i = 1, people do replies[i] = decide(i) end

-- … then write everything.
if #records > 0 then
  redis.call('HSET', tickets, unpack(records))
  redis.call('PEXPIRE', tickets, string.format('%.0f', sale[3] - now_ms + KEPT_MS))
  redis.call('HSET', room, 'issued', issued)
  for i = 1, #proofs do
    local proof, milliseconds = proofs[i][1], proofs[i][2]
    redis.call('SET', proof, '', 'PX', milliseconds)
  end
end
return replies
