-- Makes a lease last again, also one that has lapsed and that nobody has taken. Answers 1, or what is remembered of
-- its end. KEYS[3] remembers that.
local T, id = KEYS[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local text = redis.call('HGET', T, 'l' .. id)
if not text then return redis.call('GET', KEYS[3]) or '' end
local start, rest = string.match(text, '^(%d+ %d+ %d+) %d+ %d+ (.*)$')
redis.call('HSET', T, 'l' .. id, start .. ' ' .. (now + ARGV[3]) .. ' ' .. ARGV[3] .. ' ' .. rest)
return 1
