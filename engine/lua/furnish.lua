-- furnish: write a waiting room's newest settings, and what it must not forget. One atomic step.
-- KEYS  1 room  2 tickets  3 used  4 present  5 passed  6 fronts  7… attendance (18)
-- ARGV  1 revision  2 on  3 order  4 prequeue_seconds  5 pace_max (0: none)  6 over_admission
--       7 admission_seconds  8 absent_seconds  9 seed  10 issued  11 serving  12 drawn (-1: not yet)
-- Returns  'FURNISHED' | 'UNCHANGED'
--
-- The revision is counted in Postgres. Numbers only grow: what was given out before Redis lost the
-- room is not given out again. Who was drawn stays drawn. A room with another seed is that of another
-- sale of this name, of a Postgres that is no more: nothing of it is kept.
local room, tickets, used, present = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local passed, fronts = KEYS[5], KEYS[6]
local SLOTS = 18
local ATTENDANCE = { KEYS[7], unpack(KEYS, 8, 6 + SLOTS) }
local function whole(number) return string.format('%.0f', number) end

-- Check everything, …
local found = redis.call('HMGET', room, 'revision', 'issued', 'serving', 'drawn', 'seed')
local foreign = found[5] and found[5] ~= ARGV[9]
if foreign then found = {} end
if found[1] and tonumber(found[1]) >= tonumber(ARGV[1]) then return 'UNCHANGED' end

-- … then write everything.
if foreign then
  redis.call('UNLINK', room, tickets, used, present, passed, fronts, unpack(ATTENDANCE))
end
redis.call('HSET', room, 'revision', ARGV[1], 'on', ARGV[2], 'order', ARGV[3],
  'prequeue_seconds', ARGV[4], 'pace_max', ARGV[5], 'over_admission', ARGV[6],
  'admission_seconds', ARGV[7], 'absent_seconds', ARGV[8], 'seed', ARGV[9],
  'issued', whole(math.max(tonumber(ARGV[10]), tonumber(found[2] or 0))),
  'serving', whole(math.max(tonumber(ARGV[11]), tonumber(found[3] or 0))))
if not found[4] and ARGV[12] ~= '-1' then redis.call('HSET', room, 'drawn', ARGV[12]) end
return 'FURNISHED'
