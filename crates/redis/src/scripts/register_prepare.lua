-- An acceptor of one context's register: promises to accept nothing older than a ballot, and says what it has.
-- KEYS[1]: a hash. run: the server's run that it remembers without a break; p: the ballot promised; a, v, at: the
-- ballot accepted, its value and when; ticket: names one time of having forgotten; w: until when whoever was promised
-- p last has the time to come to an end. A ballot is "epoch round id".
-- ARGV: run, ballot, F where the ballot founds an epoch of its own, which nobody else has, and for how long others are
-- put off. Answers {1, a, v, age} promised, {0, p} something newer is promised or another proposer is at it, {2, a, v,
-- age, ticket} it has forgotten what it promised before. Times are microseconds of this server's clock.
local R, seen, time = KEYS[1], redis.call('HMGET', KEYS[1], 'run', 'p', 'a', 'v', 'at', 'ticket', 'w'), redis.call('TIME')
local function newer(one, other)
  local e1, r1, i1 = string.match(one, '^(%d+) (%d+) (%d+)$')
  local e2, r2, i2 = string.match(other, '^(%d+) (%d+) (%d+)$')
  e1, r1, i1, e2, r2, i2 = tonumber(e1), tonumber(r1), tonumber(i1), tonumber(e2), tonumber(r2), tonumber(i2)
  if e1 ~= e2 then return e1 > e2 end
  if r1 ~= r2 then return r1 > r2 end
  return i1 > i2
end
local now = time[1] * 1000000 + time[2]
local age = seen[5] and string.format('%.0f', math.max(now - seen[5], 0)) or '0'
local remembers = seen[1] == ARGV[1]
if seen[2] and newer(seen[2], ARGV[2]) then return { 0, seen[2] } end
-- To refuse is always safe: without this, proposers would keep each other from coming to an end.
local left = (seen[7] or 0) - now
if left > 0 and left < 1000000 and seen[2] and string.match(seen[2], '%d+$') ~= string.match(ARGV[2], '%d+$') then
  return { 0, seen[2] }
end
if remembers or ARGV[3] == 'F' then
  redis.call('HSET', R, 'p', ARGV[2], 'run', ARGV[1], 'w', string.format('%.0f', now + ARGV[4]))
  if not remembers then redis.call('HDEL', R, 'ticket') end
  return { 1, seen[3] or '', seen[4] or '', age }
end
local ticket = seen[6]
if not ticket then
  ticket = string.format('%.0f', now)
  redis.call('HSET', R, 'ticket', ticket)
end
return { 2, seen[3] or '', seen[4] or '', age, ticket }
