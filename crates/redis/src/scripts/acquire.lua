-- Acquire, the long way: several claims, something in the way, a queue, a second look.
-- Answers {0} no epoch, {1, epoch, count, spare} granted, {2, next} queued (and in how many milliseconds the first lease
-- in the way runs out), {3, …} not granted, {4} ended, {5} the lease that it replaces is no more, {6, …} waiting would
-- close a circle.
local function acquire(id, text, ttl, wait, ended)
  local held = call('HGET', T, id)
  if held then
    local lease = lease_of(held)
    return { 1, lease.epoch, lease.count }
  end
  local home, info = string.match(text, '^(%S+) (.*)$')
  local asker = { ttl = ttl, home = home, info = info }
  local about = cjson.decode(info)
  local claims, replaces = about.claims, about.replaces
  local function next_end(stands)
    local first = -1
    for _, lease in ipairs(stands) do
      if first < 0 or lease.ends - now < first then first = lease.ends - now end
    end
    return first
  end
  if call('HGET', T, 'run') ~= RUN then return { 0 } end
  local waiter = call('HGET', T, 'w/' .. id)
  if replaces and call('HEXISTS', T, replaces) == 0 then
    if waiter then dequeue(id, waiter_of(waiter).info) end
    return { 5 }
  end
  if waiter then return { 2, next_end((standing(obstacles(claims, id, replaces)))) } end
  if ended and call('EXISTS', ended) == 1 then return { 4 } end
  local stands, lapsed = standing(obstacles(claims, id, replaces))
  local waits = somebody_waits_for(claims, replaces)
  if #stands == 0 and waits and wait <= 0 then
    -- Those who wait may have waited too long.
    settle({ unpack(claims) })
    stands, lapsed = standing(obstacles(claims, id, replaces))
    waits = somebody_waits_for(claims, replaces)
  end
  if #stands == 0 and not waits then
    for _, lease in ipairs(lapsed) do remove(lease, true) end
    local epoch, count, spare = grant(id, asker, asker.ttl, about.spare or 0)
    -- An exclusive lease that became a shared one lets others in.
    if replaces then settle({ unpack(claims) }) end
    return { 1, epoch, count, spare }
  end
  want(stands)
  if wait <= 0 then return blocked(id, about) end
  enqueue(id, asker, wait)
  if #stands == 0 then
    -- Those ahead may only seem to wait: a process that has no subscriber is skipped.
    settle({ unpack(claims) })
    held = call('HGET', T, id)
    if held then
      local lease = lease_of(held)
      return { 1, lease.epoch, lease.count }
    end
  end
  local steps = circle(id)
  if steps then
    dequeue(id, asker.info)
    return steps
  end
  return { 2, next_end(stands) }
end
