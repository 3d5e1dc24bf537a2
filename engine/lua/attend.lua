-- attend: note which places polled, and say who is there at all. One atomic step.
-- KEYS  1 room  2 present  3 passed  4 fronts  5 scratch  6… attendance (18)
-- ARGV  1 bitmap (by place)  2 drawn (as whoever made the bitmap knew it; -1: not yet)
--       3 front (the name of whoever calls; '': none)  4 now_ms ('': the clock of Redis)
-- Returns  { present, mark }, or nothing if Redis does not know the room
--
-- Time goes in periods of `absent_seconds`; each has a slot of the ring. Present is who polled in this
-- period or the one before: places up to `mark` have had all of that one to do so, later ones are too
-- new to be judged. Nobody is judged (mark 0) where polls may have gone unheard: after a gap, while a
-- front is missing, after the draw, which gives everybody another place, and where nobody polled at all.
--
-- Who was passed over as absent holds a served place all the same. When he is back he counts as admitted
-- from then on, so that the stock rule waits for him as for others.
local room, present, passed_over, fronts, scratch = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local SLOTS = 18
local ATTENDANCE = { KEYS[6], unpack(KEYS, 7, 5 + SLOTS) }
local GAP_MS_MAX = 15000     -- Fronts attend every 5 s: three times missed is a gap.
local MISSED_MS = 180000     -- A front that is away for longer is dead, and its visitors are at others.
local FRONTS_MAX = 4096      -- As many as there may be at all: the oldest go.
local KEPT_MS = 86400000     -- Bitmaps that nobody adds to any more: the sale is over.
local BITMAP_BYTES_MAX = 2097153
if #ARGV[1] > BITMAP_BYTES_MAX then return redis.error_reply('ERR the bitmap is too long') end
local now_ms = tonumber(ARGV[4])
if not now_ms then
  local time = redis.call('TIME')
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Check everything, …
local known = redis.call('HMGET', room, 'absent_seconds', 'period', 'attended_ms', 'issued',
  'begun', 'before', 'drawn')
if not known[1] then return false end
local bitmap = (known[7] or '-1') == ARGV[2] and ARGV[1] or ''
local period = math.floor(now_ms / (known[1] * 1000))
local last, attended_ms = tonumber(known[2]), tonumber(known[3])
-- The clock was set back a little: the newest slot goes on until time has caught up.
if last and period < last and last - period < SLOTS then period = last end
-- How many numbers there were when this period began, and the one before.
local begun, before = tonumber(known[5] or 0), tonumber(known[6] or 0)
local passed = last and period - last or SLOTS
if passed < 0 or passed > SLOTS then passed = SLOTS end
if passed > 0 then begun, before = tonumber(known[4] or 0), passed == 1 and begun or 0 end
local gone_ms = string.format('%.0f', now_ms - MISSED_MS)
local longest = redis.call('ZRANGEBYSCORE', fronts, '(' .. gone_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local missing = longest[2] and now_ms - longest[2] > GAP_MS_MAX
if missing or not attended_ms or math.abs(now_ms - attended_ms) > GAP_MS_MAX then
  begun, before = 0, 0
end

-- … then write everything.
for back = 0, passed - 1 do
  local attendance = ATTENDANCE[(period - back) % SLOTS + 1]
  redis.call('UNLINK', attendance)
end
local attendance, previous = ATTENDANCE[period % SLOTS + 1], ATTENDANCE[(period - 1) % SLOTS + 1]
if #bitmap > 0 then
  redis.call('SET', scratch, bitmap)
  redis.call('BITOP', 'OR', attendance, attendance, scratch)
  redis.call('UNLINK', scratch)
  redis.call('PEXPIRE', attendance, KEPT_MS)
end
redis.call('BITOP', 'OR', present, attendance, previous)
redis.call('PEXPIRE', present, KEPT_MS)
if redis.call('EXISTS', passed_over) == 1 then
  redis.call('BITOP', 'AND', scratch, present, passed_over)
  local back = redis.call('BITCOUNT', scratch)
  if back > 0 then
    redis.call('BITOP', 'XOR', passed_over, passed_over, scratch)
    redis.call('PEXPIRE', passed_over, KEPT_MS)
    redis.call('HINCRBY', room, 'admitted', back)
    redis.call('HINCRBYFLOAT', room, 'deciding', back)
  end
  redis.call('UNLINK', scratch)
end
if ARGV[3] ~= '' then
  redis.call('ZREMRANGEBYSCORE', fronts, '-inf', gone_ms)
  redis.call('ZADD', fronts, string.format('%.0f', now_ms), ARGV[3])
  redis.call('ZREMRANGEBYRANK', fronts, 0, -FRONTS_MAX - 1)
  redis.call('PEXPIRE', fronts, KEPT_MS)
end
local mark = redis.call('BITCOUNT', present) > 0 and before or 0
redis.call('HSET', room, 'period', period, 'attended_ms', string.format('%.0f', now_ms),
  'begun', begun, 'before', before, 'mark', mark)
return { redis.call('GET', present) or '', mark }
