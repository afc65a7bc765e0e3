-- Acquire, the common case first: one claim, nothing in its way, nobody in the queue. Two calls and the time.
-- ARGV: run, id, ttl, home, info, wait, first, mode, and for one claim the fields of its path and of those above it.
local T, id = KEYS[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[9] and ARGV[7] == '1' then
  local seen = redis.call('HMGET', T, 'run', 'epoch', 'count', 'queue', unpack(ARGV, 9))
  if seen[1] == ARGV[1] and not seen[4] then
    local exclusive = ARGV[8] == 'X'
    local free = not seen[5] and not seen[6]
    for i = 7, #seen, 2 do
      if seen[i] and (exclusive or string.byte(seen[i]) == 88) then free = false end
    end
    if free then
      local count, unit = seen[3] + 1, exclusive and 1000000 or 1
      local lease = seen[2] .. ' ' .. count .. ' ' .. now .. ' ' .. (now + ARGV[3]) .. ' ' .. ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]
      local set = { 'count', count, 'l' .. id, lease, ARGV[9], ARGV[8] .. id }
      for i = 12, #ARGV, 2 do
        set[#set + 1] = ARGV[i]
        set[#set + 1] = (seen[i - 4] or 0) + unit
      end
      redis.call('HSET', T, unpack(set))
      return { 1, seen[2], count }
    end
  end
end
