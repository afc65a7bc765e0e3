-- Release, the common case first: one claim whose fields the holder still knows, and nobody in the queue.
-- ARGV: run, id, what to remember of the end (empty: nothing), who is told of a loss, and for one claim its mode, the
-- field of its path and the counts of those above it.
local call, T, id = redis.call, KEYS[1], ARGV[2]
if ARGV[5] then
  local seen = call('HMGET', T, 'queue', unpack(ARGV, 6))
  local exclusive = ARGV[5] == 'X'
  if not seen[1] and seen[2] == (exclusive and id or 'S' .. id) then
    if #seen == 2 then
      call('HDEL', T, id, ARGV[6])
    else
      local unit, gone, left = exclusive and '1000000' or '1', { id, ARGV[6] }, {}
      for i = 3, #seen do
        if seen[i] == unit or not seen[i] then
          gone[#gone + 1] = ARGV[i + 4]
        else
          left[#left + 1] = ARGV[i + 4]
          left[#left + 1] = seen[i] - unit
        end
      end
      call('HDEL', T, unpack(gone))
      if left[1] then call('HSET', T, unpack(left)) end
    end
    return 1
  end
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
