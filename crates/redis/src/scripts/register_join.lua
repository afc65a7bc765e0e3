-- An acceptor that has forgotten takes over what a majority of those who remember has decided, and votes again.
-- Whatever it promised before is no danger: all who could rely on that promise need one of that majority as well.
-- ARGV: run, ticket, ballot, the next one, value. Answers 1, or 0 where it has forgotten again or joined already.
local seen, time = redis.call('HMGET', KEYS[1], 'run', 'ticket'), redis.call('TIME')
if seen[1] == ARGV[1] or seen[2] ~= ARGV[2] then return 0 end
local now = string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'p', ARGV[4], 'a', ARGV[3], 'v', ARGV[5], 'at', now)
redis.call('HDEL', KEYS[1], 'ticket')
return 1
