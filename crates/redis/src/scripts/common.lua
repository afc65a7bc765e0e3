-- The lock table of one context. KEYS[1] is a hash, KEYS[2] the queue (a sorted set of attempts by place).
--   run, epoch, count   the server's run that the epoch belongs to, the epoch, the counter of its grants
--   began               when the epoch began, where the context had another before
--   place, queue        the last place given out, how many wait
--   front               the last place given out to those who come before all others: they replace a lease of their own
--   <id>                a lease: "epoch count sec usec lasts home info", by the time of its grant
--   w/<id>              a waiter: "since ends ttl home info"
--   h/<path>            who holds this very path: an id, or S and the ids of those who share it
--   b/<path>            how many claims are held below it: UNIT for each exclusive one, 1 for each shared one
--   v/<path>, d/<path>  how many claims wait for this very path, and for those below it, counted in the same way
--   k/<id>              the attempts that keep this lease while they wait
--   a/<home>            since when a process is absent
-- A path is empty for the whole context, which has no count of what is held below it: everything is. Times are
-- milliseconds of the server's clock, which alone decides expiry.
local Q = KEYS[2]
local UNIT, GRACE, CONFIRM, COME_BACK = 1000000, 400, 2000, 3000
-- Before all places that are given out otherwise.
local FRONT = -1e15
-- Beyond this, numbers are no longer written as whole numbers: nothing is left to spare.
local COUNT_MAX = 1e13

local function above(path)
  local list, from = {}, 1
  if path == '' then return list end
  list[1] = ''
  while true do
    local slash = string.find(path, '/', from, true)
    if not slash then return list end
    list[#list + 1] = string.sub(path, 1, slash - 1)
    from = slash + 1
  end
end

local function unit(mode) return mode == 'X' and UNIT or 1 end

local function bump(field, by)
  if call('HINCRBY', T, field, by) <= 0 then call('HDEL', T, field) end
end

local function claims_of(info) return cjson.decode(info).claims end

-- The leases that stay until an attempt is settled.
local function kept_by(about)
  local kept = { unpack(about.keeps or {}) }
  kept[#kept + 1] = about.replaces
  return kept
end

local function lease_of(text)
  local epoch, count, sec, usec, lasts, home, info = string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (.*)$')
  local since = sec * 1000 + math.floor(usec / 1000)
  return { epoch = epoch, count = count, ends = since + lasts, home = home, info = info }
end

local function waiter_of(text)
  local since, ends, ttl, home, info = string.match(text, '^(%d+) (%d+) (%d+) (%S+) (.*)$')
  return { since = since, ends = tonumber(ends), ttl = ttl, home = home, info = info }
end

-- The leases that stand in the way of claims, lapsed ones too. What an attempt replaces is not in its way.
local function obstacles(claims, own, replaces)
  local found, known = {}, {}
  if replaces then known[replaces] = true end
  local function add(holders, mode)
    if not holders then return end
    local shared = string.byte(holders) == 83
    if shared and mode == 'S' then return end
    for at = shared and 2 or 1, #holders, 32 do
      local other = string.sub(holders, at, at + 31)
      if other ~= own and not known[other] then
        known[other] = true
        found[#found + 1] = other
      end
    end
  end
  for _, claim in ipairs(claims) do
    local mode, path = claim[1], claim[2]
    local fields = { 'b/' .. path, 'h/' .. path }
    for _, ancestor in ipairs(above(path)) do fields[#fields + 1] = 'h/' .. ancestor end
    local seen = call('HMGET', T, unpack(fields))
    for i = 2, #fields do add(seen[i], mode) end
    if path == '' or tonumber(seen[1] or 0) >= (mode == 'X' and 1 or UNIT) then
      -- Something below is held. This is rare, and a look through the table finds it.
      local start = path == '' and 'h/' or 'h/' .. path .. '/'
      for _, field in ipairs(call('HKEYS', T)) do
        if #field > #start and string.sub(field, 1, #start) == start then add(call('HGET', T, field), mode) end
      end
    end
  end
  return found
end

local function standing(ids)
  local stands, lapsed = {}, {}
  for _, other in ipairs(ids) do
    local text = call('HGET', T, other)
    local lease = text and lease_of(text)
    if lease then
      lease.id, lease.text = other, text
      local list = lease.ends > now and stands or lapsed
      list[#list + 1] = lease
    end
  end
  return stands, lapsed
end

local function bump_above(prefix, path, by)
  for _, ancestor in ipairs(above(path)) do
    if ancestor ~= '' or prefix ~= 'b/' then bump(prefix .. ancestor, by) end
  end
end

-- Takes a lease out; its claims.
local function remove(lease, told)
  call('HDEL', T, lease.id)
  local claims = claims_of(lease.info)
  for _, claim in ipairs(claims) do
    local field = 'h/' .. claim[2]
    local holders = call('HGET', T, field)
    if holders == lease.id then
      call('HDEL', T, field)
    elseif holders then
      local left = 'S'
      for at = 2, #holders, 32 do
        local other = string.sub(holders, at, at + 31)
        if other ~= lease.id then left = left .. other end
      end
      if #left > 1 then call('HSET', T, field, left) else call('HDEL', T, field) end
    end
    bump_above('b/', claim[2], -unit(claim[1]))
  end
  if told then call('PUBLISH', lease.home, 'L ' .. lease.id) end
  return claims
end

-- Tells the holders of leases with spare tokens that somebody wants them: they may keep them without using them.
local function want(leases)
  for _, lease in ipairs(leases) do
    if string.find(lease.info, '"spare":', 1, true) then call('PUBLISH', lease.home, 'W ' .. lease.id) end
  end
end

-- Makes an attempt a lease; what it replaces goes in the same moment. So many counts after its own are its own, too.
local function grant(attempt, asker, lasts, spare)
  local about = cjson.decode(asker.info)
  local replaced = about.replaces and call('HGET', T, about.replaces)
  if replaced then
    local lease = lease_of(replaced)
    lease.id = about.replaces
    remove(lease)
  end
  local epoch, count = call('HGET', T, 'epoch'), call('HINCRBY', T, 'count', 1)
  if count > COUNT_MAX then spare = 0 end
  local info = asker.info
  if spare > 0 then
    call('HINCRBY', T, 'count', spare)
  elseif about.spare then
    -- It has none to spare: nobody needs to ask it for its lease. What says so comes last.
    info = string.gsub(info, ',"spare":%d+}$', '}')
  end
  local when = time[1] .. ' ' .. time[2] .. ' ' .. lasts
  call('HSET', T, attempt, epoch .. ' ' .. count .. ' ' .. when .. ' ' .. asker.home .. ' ' .. info)
  for _, claim in ipairs(about.claims) do
    local field = 'h/' .. claim[2]
    local holders = claim[1] == 'X' and attempt or (call('HGET', T, field) or 'S') .. attempt
    call('HSET', T, field, holders)
    bump_above('b/', claim[2], unit(claim[1]))
  end
  return epoch, count, spare
end

local function count_waiting(claims, sign)
  for _, claim in ipairs(claims) do
    bump('v/' .. claim[2], sign * unit(claim[1]))
    bump_above('d/', claim[2], sign * unit(claim[1]))
  end
  bump('queue', sign)
end

local function enqueue(attempt, asker, wait)
  local about = cjson.decode(asker.info)
  local place = about.replaces and FRONT + call('HINCRBY', T, 'front', 1) or call('HINCRBY', T, 'place', 1)
  call('ZADD', Q, string.format('%.0f', place), attempt)
  call('HSET', T, 'w/' .. attempt, now .. ' ' .. (now + wait) .. ' ' .. asker.ttl .. ' ' .. asker.home .. ' ' .. asker.info)
  count_waiting(about.claims, 1)
  for _, lease in ipairs(kept_by(about)) do
    call('HSET', T, 'k/' .. lease, (call('HGET', T, 'k/' .. lease) or '') .. attempt)
  end
end

local function dequeue(attempt, info)
  local about = cjson.decode(info)
  call('ZREM', Q, attempt)
  call('HDEL', T, 'w/' .. attempt)
  count_waiting(about.claims, -1)
  for _, lease in ipairs(kept_by(about)) do
    local left, keepers = '', call('HGET', T, 'k/' .. lease) or ''
    for at = 1, #keepers, 32 do
      local other = string.sub(keepers, at, at + 31)
      if other ~= attempt then left = left .. other end
    end
    if left == '' then call('HDEL', T, 'k/' .. lease) else call('HSET', T, 'k/' .. lease, left) end
  end
end

local function is_at_or_below(path, ancestor)
  return ancestor == '' or path == ancestor or string.sub(path, 1, #ancestor + 1) == ancestor .. '/'
end

local function conflict(some, others)
  for _, a in ipairs(some) do
    for _, b in ipairs(others) do
      if (a[1] == 'X' or b[1] == 'X') and (is_at_or_below(a[2], b[2]) or is_at_or_below(b[2], a[2])) then return true end
    end
  end
  return false
end

-- Whether anybody who waits came before a newcomer with these claims: all of them did.
local function somebody_waits_for(claims, replaces)
  if replaces then
    -- Before it come only those that replace a lease of their own as well: few.
    for _, other in ipairs(call('ZRANGEBYSCORE', Q, '-inf', '(0')) do
      if conflict(claims, claims_of(waiter_of(call('HGET', T, 'w/' .. other)).info)) then return true end
    end
    return false
  end
  for _, claim in ipairs(claims) do
    local fields = { 'v/' .. claim[2], 'd/' .. claim[2] }
    for _, ancestor in ipairs(above(claim[2])) do fields[#fields + 1] = 'v/' .. ancestor end
    for _, waiting in ipairs(call('HMGET', T, unpack(fields))) do
      if tonumber(waiting or 0) >= (claim[1] == 'X' and 1 or UNIT) then return true end
    end
  end
  return false
end

-- Whether whoever might want what became free conflicts with somebody who came before and was looked at already.
local function is_taken_again(freed, looked_at)
  for _, claim in ipairs(freed) do
    local covered = false
    for _, other in ipairs(looked_at) do
      if other[1] == 'X' and is_at_or_below(claim[2], other[2]) then covered = true end
    end
    if not covered then return false end
  end
  return true
end

-- Since how long a process has been seen to have no subscriber. After a failover or a restart all processes come back
-- one after the other: nobody is absent in the first moments of an epoch.
local function absent_for(home)
  if now - (call('HGET', T, 'began') or 0) < COME_BACK then return 0 end
  local since = call('HGET', T, 'a/' .. home)
  if since then return now - since end
  call('HSET', T, 'a/' .. home, now)
  return 0
end

-- Serves the queue, first come first served, after the claims in `freed` became free. A waiter whose process has no
-- subscriber is skipped at once, keeps its place for a moment in which it may come back, and then goes.
local function settle(freed)
  local meta = call('HMGET', T, 'queue', 'run', 'epoch', 'count')
  -- Without the epoch of this run nobody is granted anything: whoever waits finds out and begins one.
  if not meta[1] or meta[2] ~= RUN then return end
  local epoch, count = meta[3], tonumber(meta[4])
  local ahead, is_ahead, looked_at, from = {}, {}, {}, '-inf'
  while true do
    local page = call('ZRANGEBYSCORE', Q, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 16)
    if #page == 0 then return end
    for i = 1, #page, 2 do
      local attempt = page[i]
      from = '(' .. page[i + 1]
      local waiter = waiter_of(call('HGET', T, 'w/' .. attempt))
      local about = cjson.decode(waiter.info)
      local claims, replaces = about.claims, about.replaces
      local state = 'waits'
      if waiter.ends <= now or (replaces and call('HEXISTS', T, replaces) == 0) then
        state = 'goes'
      elseif not conflict(claims, ahead) then
        local stands, lapsed = standing(obstacles(claims, attempt, replaces))
        if #stands == 0 then
          local when = ' ' .. time[1] .. ' ' .. time[2]
          if call('PUBLISH', waiter.home, 'G ' .. attempt .. ' ' .. epoch .. ' ' .. count + 1 .. when) == 0 then
            state = absent_for(waiter.home) >= GRACE and 'goes' or 'skipped'
          else
            state = 'granted'
            dequeue(attempt, waiter.info)
            for _, lease in ipairs(lapsed) do remove(lease, true) end
            -- A short time at first: a renewal confirms it.
            grant(attempt, waiter, math.min(tonumber(waiter.ttl), CONFIRM), 0)
            count = count + 1
          end
        end
      end
      if state == 'goes' then dequeue(attempt, waiter.info) end
      for _, claim in ipairs(claims) do
        if state == 'goes' or state == 'skipped' then
          -- Whoever waited behind it may be next.
          freed[#freed + 1] = claim
        else
          looked_at[#looked_at + 1] = claim
          if state == 'waits' and not is_ahead[claim[1] .. claim[2]] then
            is_ahead[claim[1] .. claim[2]] = true
            ahead[#ahead + 1] = claim
          end
        end
      end
      if is_taken_again(freed, looked_at) then return end
    end
  end
end

-- What is told to an attempt that was not granted: how many that conflict are ahead of it, and the leases in its way.
local function blocked(attempt, about)
  local rank, ahead = call('ZRANK', Q, attempt), 0
  local before = {}
  if not rank and about.replaces then
    before = call('ZRANGEBYSCORE', Q, '-inf', '(0', 'LIMIT', 0, 64)
  elseif rank ~= 0 then
    before = call('ZRANGE', Q, 0, math.min(rank or 64, 64) - 1)
  end
  for _, other in ipairs(before) do
    local waiter = waiter_of(call('HGET', T, 'w/' .. other))
    if conflict(about.claims, claims_of(waiter.info)) then ahead = ahead + 1 end
  end
  -- Beyond these nobody counts exactly.
  if rank and rank > 64 then ahead = rank end
  local answer = { 3, ahead, now }
  for _, lease in ipairs((standing(obstacles(about.claims, attempt, about.replaces)))) do
    answer[#answer + 1] = lease.id
    answer[#answer + 1] = lease.text
  end
  return answer
end
