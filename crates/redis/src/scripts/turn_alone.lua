-- A turn that goes by itself, the common case first: nothing in its way, and nobody waits for anything. It is as
-- `turns_first.lua` says, which sees to all else; this is no other rule, but half of the work.
-- Answers "epoch count" of a grant, or 1 of an end: quicker to say than a list.
local call, ARGV, KEYS, T, RUN, match = redis.call, ARGV, KEYS, KEYS[1], ARGV[1], string.match
local at = ARGV[2] == '0' and 3 or 4 + ARGV[3]
if ARGV[2] + 0 <= 1 and #ARGV <= at + 3 then
  local what, mode, ttl = match(ARGV[at], '^([AR])([XS]) %d+ (%d+)')
  local unit = mode == 'X' and 1000000 or 1
  if what == 'A' then
    local id, path = ARGV[at + 1], ARGV[at + 3]
    local own = 'h/' .. path
    local seen = call('HMGET', T, 'run', 'epoch', 'count', 'queue', 'h/', own, 'b/' .. path, unpack(ARGV, 4, at - 1))
    if seen[1] == RUN and not (seen[4] or seen[5] or seen[6] or seen[7]) then
      local count, free = seen[3] + 1, true
      local set = { 'count', count, own, mode == 'X' and id or 'S' .. id, id, '' }
      for i = 8, #seen, 2 do
        -- What is shared above does not matter to what is to be shared.
        if seen[i] and (mode == 'X' or string.byte(seen[i]) ~= 83) then free = false end
        set[i - 1], set[i] = ARGV[i - 3], (seen[i + 1] or 0) + unit
      end
      if free then
        local time = call('TIME')
        local when = ' ' .. time[1] .. ' ' .. time[2] .. ' '
        set[6] = seen[2] .. ' ' .. count .. when .. ttl .. ' ' .. ARGV[at + 2]
        call('HSET', T, unpack(set))
        return seen[2] .. ' ' .. count
      end
    end
  elseif what == 'R' then
    local id, own = ARGV[at + 1], 'h/' .. ARGV[at + 2]
    local seen = call('HMGET', T, 'queue', own, unpack(ARGV, 4, at - 1))
    if not seen[1] and seen[2] == (mode == 'X' and id or 'S' .. id) then
      local gone, left = { id, own }, {}
      for i = 4, #seen, 2 do
        local held = (seen[i] or 0) - unit
        if held > 0 then
          left[#left + 1] = ARGV[i + 1]
          left[#left + 1] = held
        else
          gone[#gone + 1] = ARGV[i + 1]
        end
      end
      call('HDEL', T, unpack(gone))
      if left[1] then call('HSET', T, unpack(left)) end
      return 1
    end
  end
end
