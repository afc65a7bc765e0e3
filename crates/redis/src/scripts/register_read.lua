-- What an acceptor has, without any promise: {1, a, v, age} where it remembers, else {2, a, v, age}. ARGV: run.
local seen, time = redis.call('HMGET', KEYS[1], 'run', 'a', 'v', 'at'), redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local age = seen[4] and string.format('%.0f', math.max(now - seen[4], 0)) or '0'
return { seen[1] == ARGV[1] and 1 or 2, seen[2] or '', seen[3] or '', age }
