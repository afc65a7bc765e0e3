-- A process looks after its waiters: those that were granted while it could not be told, those whose lock is held by
-- somebody who is dead or whose lease has run out. ARGV from 2: ids; KEYS from 3: what is remembered of their ends.
-- Answers {next, {id, state, …}, …}: G with epoch and count, W waiting, E ended, M missing; first of all whether the
-- epoch is over.
local next_look, answer = -1, {}
local is_over = call('HGET', T, 'run') ~= RUN
for i = 2, #ARGV do
  local attempt = ARGV[i]
  local text = call('HGET', T, 'w/' .. attempt)
  local before = text and cjson.decode(waiter_of(text).info)
  if before and before.replaces and call('HEXISTS', T, before.replaces) == 0 then
    -- What it was to take the place of is no more: it asks again, and is told so.
    dequeue(attempt, waiter_of(text).info)
    settle({ unpack(before.claims) })
    text = nil
  end
  if text and not is_over then
    local waiter = waiter_of(text)
    local about = cjson.decode(waiter.info)
    local claims = about.claims
    -- Whoever asks is there.
    call('HDEL', T, 'a/' .. waiter.home)
    local freed = {}
    local stands, lapsed = standing(obstacles(claims, attempt, about.replaces))
    for _, lease in ipairs(stands) do
      local absent = 'a/' .. lease.home
      if call('PUBSUB', 'NUMSUB', lease.home)[2] > 0 then
        call('HDEL', T, absent)
        local left = lease.ends - now
        if next_look < 0 or left < next_look then next_look = left end
      else
        if absent_for(lease.home) >= GRACE then
          -- Its process has had no connection for the whole grace: it is taken for dead. Should it live, the
          -- fencing token keeps its writes out.
          call('HDEL', T, absent)
          for _, claim in ipairs(remove(lease, true)) do freed[#freed + 1] = claim end
        end
      end
    end
    -- A dead process's request, too, is in the way of those behind it.
    local rank, alive = call('ZRANK', Q, attempt), {}
    for _, other in ipairs(rank > 0 and call('ZRANGE', Q, 0, math.min(rank, 64) - 1) or {}) do
      local before = waiter_of(call('HGET', T, 'w/' .. other))
      local home = before.home
      if alive[home] == nil then alive[home] = call('PUBSUB', 'NUMSUB', home)[2] > 0 end
      if not alive[home] and absent_for(home) >= GRACE then
        dequeue(other, before.info)
        for _, claim in ipairs(claims_of(before.info)) do freed[#freed + 1] = claim end
      end
    end
    if #stands == 0 then
      for _, claim in ipairs(claims) do freed[#freed + 1] = claim end
      for _, lease in ipairs(lapsed) do
        for _, claim in ipairs(claims_of(lease.info)) do freed[#freed + 1] = claim end
      end
    end
    if #freed > 0 then settle(freed) end
  end
  local lease = call('HGET', T, attempt)
  if lease then
    lease = lease_of(lease)
    answer[#answer + 1] = { attempt, 'G', lease.epoch, lease.count }
  elseif call('HEXISTS', T, 'w/' .. attempt) == 1 then
    answer[#answer + 1] = { attempt, 'W' }
  elseif call('EXISTS', KEYS[i + 1]) == 1 then
    answer[#answer + 1] = { attempt, 'E' }
  else
    answer[#answer + 1] = { attempt, 'M' }
  end
end
return { is_over and 1 or 0, next_look, answer }
