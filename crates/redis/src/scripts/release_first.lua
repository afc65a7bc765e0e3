-- Release, the common case first: one claim whose fields the holder still knows, and nobody in the queue.
-- ARGV: run, id, what to remember of the end (empty: nothing), who is told of a loss, mode, and for one claim the
-- field of its path and the counts of those above it.
local T, id = KEYS[1], ARGV[2]
if ARGV[6] and ARGV[3] == '' then
  local seen = redis.call('HMGET', T, 'queue', 'l' .. id, unpack(ARGV, 6))
  if seen[2] and not seen[1] and seen[3] == ARGV[5] .. id then
    local gone, left, unit = { 'l' .. id, ARGV[6] }, {}, ARGV[5] == 'X' and 1000000 or 1
    for i = 4, #seen do
      local count = (seen[i] or 0) - unit
      if count > 0 then
        left[#left + 1] = ARGV[i + 3]
        left[#left + 1] = count
      else
        gone[#gone + 1] = ARGV[i + 3]
      end
    end
    redis.call('HDEL', T, unpack(gone))
    if left[1] then redis.call('HSET', T, unpack(left)) end
    return 1
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
