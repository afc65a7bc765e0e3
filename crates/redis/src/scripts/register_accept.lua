-- An acceptor accepts a value, and promises its proposer the next ballot at the same time: whoever changes a register
-- twice in a row needs one round trip for the second change.
-- ARGV: run, ballot, the next one, value. Answers {1} accepted, {0, p} something newer is promised, {2, ticket} it has
-- forgotten what it promised: it may not vote until it has joined again.
local seen, time = redis.call('HMGET', KEYS[1], 'run', 'p', 'ticket'), redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if seen[1] ~= ARGV[1] then
  if not seen[3] then redis.call('HSET', KEYS[1], 'ticket', now) end
  return { 2, seen[3] or now }
end
if seen[2] ~= ARGV[2] then
  local e1, r1, i1 = string.match(seen[2], '^(%d+) (%d+) (%d+)$')
  local e2, r2, i2 = string.match(ARGV[2], '^(%d+) (%d+) (%d+)$')
  e1, r1, i1, e2, r2, i2 = tonumber(e1), tonumber(r1), tonumber(i1), tonumber(e2), tonumber(r2), tonumber(i2)
  if e1 > e2 or (e1 == e2 and (r1 > r2 or (r1 == r2 and i1 > i2))) then return { 0, seen[2] } end
end
redis.call('HSET', KEYS[1], 'p', ARGV[3], 'a', ARGV[2], 'v', ARGV[4], 'at', now, 'w', 0)
return { 1 }
