-- Begins an epoch, unless this run has one above a number, and serves those who waited for it.
-- ARGV: run, the epoch (0 where none is minted yet), the number. Answers 'done', or the last epoch that is remembered,
-- of whatever run, where the one that was brought is not above it: then another must be minted.
local last, above = tonumber(call('HGET', T, 'epoch') or 0), tonumber(ARGV[3])
local run = call('HGET', T, 'run')
if run == RUN and last > above then return 'done' end
if tonumber(ARGV[2]) <= math.max(last, above) then return string.format('%.0f', last) end
-- Processes are taken for absent while they come back, not where the run goes on.
if run and run ~= RUN then call('HSET', T, 'began', now) end
call('HSET', T, 'run', RUN, 'epoch', ARGV[2], 'count', 0)
settle({ { 'X', '' } })
return 'done'
