-- Release or revocation, the long way. Answers 1 where there was something, else 0.
local function release(id, remember, ended, told)
  local text, freed = call('HGET', T, id), nil
  if text then
    local lease = lease_of(text)
    lease.id = id
    freed = remove(lease, told)
  else
    text = call('HGET', T, 'w/' .. id)
    if not text then return 0 end
    local waiter = waiter_of(text)
    freed = claims_of(waiter.info)
    dequeue(id, waiter.info)
    call('PUBLISH', waiter.home, 'E ' .. id)
  end
  if ended then call('SET', ended, remember, 'PX', 3600000) end
  settle(freed)
  return 1
end
