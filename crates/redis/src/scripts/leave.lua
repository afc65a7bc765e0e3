-- An attempt whose time is up leaves the queue. Answers {1, epoch, count} where it was granted at the last moment,
-- {3, …} what was in its way, {4} where there is nothing of it.
local text = call('HGET', T, id)
if text then
  local lease = lease_of(text)
  return { 1, lease.epoch, lease.count }
end
text = call('HGET', T, 'w/' .. id)
if not text then return { 4 } end
local waiter = waiter_of(text)
local about = cjson.decode(waiter.info)
local answer = blocked(id, about)
dequeue(id, waiter.info)
settle(about.claims)
return answer
