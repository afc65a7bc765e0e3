-- The circle of waiters that an attempt in the queue closes: {6, now, and for each step the id and the text of who waits,
-- L or W, and the id and the text of the lease or the waiter that it waits for}; nil where there is none.
local function circle(own)
  local order, waiters, known, kept = call('ZRANGE', Q, 0, -1), {}, {}, {}
  local function waiter(id)
    if not waiters[id] then
      local text = call('HGET', T, 'w/' .. id)
      waiters[id] = { text = text, about = cjson.decode(waiter_of(text).info) }
    end
    return waiters[id]
  end
  for _, lease in ipairs(kept_by(waiter(own).about)) do kept[lease] = true end
  -- Nobody can wait for an attempt that keeps nothing.
  if not next(kept) then return nil end
  local steps = {}
  local function follow(id)
    known[id] = true
    local own_text, about = waiter(id).text, waiter(id).about
    for _, lease in ipairs((standing(obstacles(about.claims, id, about.replaces)))) do
      steps[#steps + 1] = { id, own_text, 'L', lease.id, lease.text }
      if kept[lease.id] then return true end
      local keepers = call('HGET', T, 'k/' .. lease.id) or ''
      for at = 1, #keepers, 32 do
        local other = string.sub(keepers, at, at + 31)
        if not known[other] and follow(other) then return true end
      end
      steps[#steps] = nil
    end
    for _, other in ipairs(order) do
      if other == id then break end
      if not known[other] and conflict(about.claims, waiter(other).about.claims) then
        steps[#steps + 1] = { id, own_text, 'W', other, waiter(other).text }
        if follow(other) then return true end
        steps[#steps] = nil
      end
    end
    return false
  end
  if not follow(own) then return nil end
  local answer = { 6, now }
  for _, step in ipairs(steps) do
    for _, part in ipairs(step) do answer[#answer + 1] = part end
  end
  return answer
end
