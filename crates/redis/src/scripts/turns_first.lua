-- Several turns in one step, each an acquire or a release. First those that have nothing in their way and nobody
-- waiting for what they touch, by the short way here: all that it needs is read at once, and all that changes is
-- written at once. Then the others, one after the other, by the long way below. Numbers stay text where they can, and
-- what is the same for many turns is made once: most of the time of a script goes into making strings and tables.
-- ARGV: run; how many folders, and for each how many fields and these: h/ and b/ of each path from the top down to it;
-- then groups of turns that have much in common: "what mode folder time wait turns", and then for each turn of it
--   A (acquire one claim): its id, its "home info", its path
--   R (release what is known to be one claim): its id, its path
--   L (acquire by the long way): its id, its "home info", which of KEYS remembers its end (0: not to be looked at)
--   E (end by the long way): its id, what is to be remembered of it, and in which of KEYS (0: nothing)
-- The mode is that of the claims (- for L and E); the folder is the number of the one that the paths lie in, 0 where
-- there is none; the time is the TTL, or for E 1 where the holder is told of its end.
-- Answers the epoch, and then for each turn: the count of a grant; 1 or 0 of an end; or a list, as said below.
local fields, n = { 'run', 'epoch', 'count', 'queue', 'h/' }, 5
-- What is held at a path after turns of this step: true where only the long way may tell.
local after = {}

-- What is asked for: all fields in one go.
local folders = { [0] = { from = 6, to = 5, held = 0 } }
at = 3
for i = 1, ARGV[2] do
  local to = at + ARGV[at]
  folders[i] = { from = n + 1, to = n + to - at, held = 0 }
  for j = at + 1, to do
    n = n + 1
    fields[n] = ARGV[j]
    after[ARGV[j]] = true
  end
  at = to + 1
end
local groups, turns_from, last = {}, n, #ARGV
while at <= last do
  local what, mode, folder, ttl, wait, turns = match(ARGV[at], '^(%u)(%S) (%d+) (%d+) (%d+) (%d+)$')
  local step = what == 'R' and 2 or 3
  local group = { what, mode, folders[tonumber(folder)], ttl, wait, at + 1, at + step * turns }
  groups[#groups + 1] = group
  if what == 'A' then
    for i = at + 3, group[7], 3 do
      local path = ARGV[i]
      fields[n + 1] = 'h/' .. path
      n = n + 2
      fields[n] = 'b/' .. path
    end
  elseif what == 'R' then
    for i = at + 2, group[7], 2 do
      n = n + 1
      fields[n] = 'h/' .. ARGV[i]
    end
  end
  at = group[7] + 1
end
local seen = call('HMGET', T, unpack(fields))
local count, time = seen[3], nil

-- Who waits is looked at where anybody does.
local queue, waiting = seen[4], {}
local function awaited(field) return tonumber(waiting[field] or 0) end
if queue then
  local asked = {}
  for i = 5, n do
    local kind, path = match(fields[i], '^(.)/(.*)$')
    if kind == 'h' then
      asked[#asked + 1] = 'v/' .. path
      asked[#asked + 1] = 'd/' .. path
    end
  end
  for i, value in ipairs(call('HMGET', T, unpack(asked))) do waiting[asked[i]] = value end
end

local function is_shared(holders) return string.byte(holders) == 83 end

-- Whether somebody holds what is above, in the way of an exclusive or a shared claim, and how many wait for that.
for i = 0, #folders do
  local folder = folders[i]
  local function look(holders, path)
    if holders then folder[is_shared(holders) and 'X' or 'S'] = true end
    if queue then folder.awaited = (folder.awaited or 0) + awaited('v/' .. path) end
  end
  look(seen[5], '')
  for j = folder.from, folder.to, 2 do look(seen[j], queue and string.sub(fields[j], 3)) end
end

local answers, set, gone, long = { seen[2] or '' }, {}, {}, {}
local a, s, g = 1, 0, 0
at = turns_from
for i = 1, #groups do
  local what, mode, folder, ttl, wait, from, to = unpack(groups[i])
  local exclusive = mode == 'X'
  local unit, least = exclusive and 1000000 or 1, exclusive and 1 or 1000000
  local free = not queue or (folder.awaited or 0) < least
  if what == 'A' then
    time = time or call('TIME')
    local head, tail = (seen[2] or '') .. ' ', ' ' .. time[1] .. ' ' .. time[2] .. ' ' .. ttl .. ' '
    free = free and seen[1] == RUN and not folder.S and not (exclusive and folder.X)
    for i = from, to, 3 do
      a, at = a + 1, at + 2
      local own, holders, below = fields[at - 1], seen[at - 1], seen[at]
      local known, ok = after[own], free
      if known then ok, holders = known ~= true and ok, known end
      if ok and holders then ok = not exclusive and is_shared(holders) end
      if ok and below then ok = tonumber(below) < least end
      if ok and queue then ok = awaited('v/' .. ARGV[i + 2]) < least and awaited('d/' .. ARGV[i + 2]) < least end
      if ok then
        local id = ARGV[i]
        count = count + 1
        local held = exclusive and id or (holders or 'S') .. id
        after[own] = exclusive or held
        set[s + 1], set[s + 2], set[s + 3] = id, head .. count .. tail .. ARGV[i + 1], own
        s = s + 4
        set[s] = held
        folder.held = folder.held + unit
        answers[a] = count
      else
        long[#long + 1] = { a, i, what, ttl, wait }
      end
    end
  elseif what == 'R' then
    for i = from, to, 2 do
      a, at = a + 1, at + 1
      local own, holders, id = fields[at], seen[at], ARGV[i]
      local known, ok, left = after[own], free, ''
      if known then ok, holders = known ~= true and ok, known end
      if ok and holders ~= id then
        local place = holders and not exclusive and is_shared(holders) and string.find(holders, id, 2, true)
        ok = place and place % 32 == 2
        if ok and #holders > 33 then left = string.sub(holders, 1, place - 1) .. string.sub(holders, place + 32) end
      end
      if ok and queue then ok = awaited('v/' .. ARGV[i + 1]) < least and awaited('d/' .. ARGV[i + 1]) < least end
      if ok then
        g = g + 1
        gone[g] = id
        if left == '' then
          g = g + 1
          gone[g], after[own] = own, true
        else
          set[s + 1], set[s + 2], after[own] = own, left, left
          s = s + 2
        end
        folder.held = folder.held - unit
        answers[a] = 1
      else
        long[#long + 1] = { a, i, what }
      end
    end
  else
    for i = from, to, 3 do
      a = a + 1
      long[#long + 1] = { a, i, what, ttl, wait }
    end
  end
end

-- What is held below each path that leads to a claim: one may lead to several.
local below = {}
for i = 1, #folders do
  local folder = folders[i]
  if folder.held ~= 0 then
    for j = folder.from + 1, folder.to, 2 do
      local field = fields[j]
      below[field] = (below[field] or tonumber(seen[j] or 0)) + folder.held
    end
  end
end
for field, held in pairs(below) do
  if held > 0 then
    set[s + 1], set[s + 2] = field, held
    s = s + 2
  else
    g = g + 1
    gone[g] = field
  end
end
if count ~= seen[3] then set[s + 1], set[s + 2] = 'count', count end
if set[1] then call('HSET', T, unpack(set)) end
if gone[1] then call('HDEL', T, unpack(gone)) end
if not long[1] then return answers end
time = time or call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
