-- Makes a lease last again, also one that has lapsed and that nobody has taken. Answers 1, or what is remembered of
-- its end. KEYS[3] remembers that.
local call, T, id = redis.call, KEYS[1], ARGV[2]
local text = call('HGET', T, id)
if not text then return call('GET', KEYS[3]) or '' end
local time = call('TIME')
local number, sec, usec, rest = string.match(text, '^(%d+ %d+) (%d+) (%d+) %d+ (.*)$')
-- By the time of its grant: how long it has been held, and its TTL from now on.
local lasts = math.floor((time[1] - sec) * 1000 + (time[2] - usec) / 1000) + ARGV[3]
call('HSET', T, id, number .. ' ' .. sec .. ' ' .. usec .. ' ' .. math.max(lasts, 0) .. ' ' .. rest)
return 1
