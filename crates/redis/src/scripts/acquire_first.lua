-- Acquire, the common case first: one claim, nothing in its way, nobody in the queue. Numbers stay text where they
-- can: most of the time of a script goes into making strings.
-- Answers "epoch count". ARGV: run, id, ttl, home and info, mode (empty where this is no first question about one claim), wait, and the
-- fields of its path and of those above it.
local call, T, id, mode = redis.call, KEYS[1], ARGV[2], ARGV[5]
local time = call('TIME')
if mode ~= '' then
  local seen = call('HMGET', T, 'run', 'epoch', 'count', 'queue', unpack(ARGV, 7))
  local free = seen[1] == ARGV[1] and not seen[4] and not seen[5] and not seen[6]
  -- What is shared above does not matter to what is to be shared.
  if seen[7] and (mode == 'X' or string.byte(seen[7]) ~= 83) then free = false end
  for i = 8, #seen, 2 do
    if seen[i] and (mode == 'X' or string.byte(seen[i]) ~= 83) then free = false end
  end
  if free then
    local count, holder, unit = seen[3] + 1, id, '1000000'
    if mode == 'S' then holder, unit = 'S' .. id, '1' end
    local lease = seen[2] .. ' ' .. count .. ' ' .. time[1] .. ' ' .. time[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
    if #seen == 7 then
      call('HSET', T, 'count', count, id, lease, ARGV[7], holder)
    else
      local set = { 'count', count, id, lease, ARGV[7], holder }
      for i = 9, #seen, 2 do
        set[#set + 1] = ARGV[i + 2]
        set[#set + 1] = seen[i] and seen[i] + unit or unit
      end
      call('HSET', T, unpack(set))
    end
    return seen[2] .. ' ' .. count
  end
end
local now = time[1] * 1000 + math.floor(time[2] / 1000)
