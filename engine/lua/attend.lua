-- attend: note which places polled, and say who is there at all. One atomic step.
-- KEYS  1 room  2 present  3 scratch  4… attendance (16)
-- ARGV  1 bitmap (by place)  2 drawn (as whoever made the bitmap knew it; -1: not yet)
--       3 now_ms ('': the clock of Redis)
-- Returns  { present, mark }, or nothing if Redis does not know the room
--
-- Time goes in periods of `absent_seconds`; each has a slot of the ring. Present is who polled in this
-- period or the one before: places up to `mark` have had all of that one to do so, later ones are too
-- new to be judged. Nobody is judged (mark 0) where polls may have gone unheard: after a gap, after the
-- draw, which gives everybody another place, and where nobody polled at all.
local room, present, scratch = KEYS[1], KEYS[2], KEYS[3]
local SLOTS = 16
local ATTENDANCE = { KEYS[4], unpack(KEYS, 5, 3 + SLOTS) }
local GAP_MS_MAX = 15000     -- Fronts attend every 5 s: three times missed is a gap.
local KEPT_MS = 86400000     -- Bitmaps that nobody adds to any more: the sale is over.
local BITMAP_BYTES_MAX = 2097153
if #ARGV[1] > BITMAP_BYTES_MAX then return redis.error_reply('ERR the bitmap is too long') end
local now_ms = tonumber(ARGV[3])
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
if not attended_ms or math.abs(now_ms - attended_ms) > GAP_MS_MAX then begun, before = 0, 0 end

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
local mark = redis.call('BITCOUNT', present) > 0 and before or 0
redis.call('HSET', room, 'period', period, 'attended_ms', string.format('%.0f', now_ms),
  'begun', begun, 'before', before, 'mark', mark)
return { redis.call('GET', present) or '', mark }
