-- Begins an epoch, unless another client has begun one meanwhile, and serves those who waited for it.
if call('HGET', T, 'run') == RUN then return 0 end
if call('HEXISTS', T, 'run') == 1 then call('HSET', T, 'began', now) end
call('HSET', T, 'run', RUN, 'epoch', ARGV[2], 'count', 0)
settle({ { 'X', '' } })
return 1
