-- Release or revocation, all other cases. KEYS[3] remembers the end. Answers 1 where there was something, else 0.
local ended, text = ARGV[3], call('HGET', T, id)
local freed
if text then
  local lease = lease_of(text)
  lease.id = id
  freed = remove(lease, ARGV[4] == 'L')
else
  text = call('HGET', T, 'w/' .. id)
  if not text then return 0 end
  local waiter = waiter_of(text)
  freed = claims_of(waiter.info)
  dequeue(id, waiter.info)
  call('PUBLISH', waiter.home, 'E ' .. id)
end
if ended ~= '' then call('SET', KEYS[3], ended, 'PX', 3600000) end
settle(freed)
return 1
