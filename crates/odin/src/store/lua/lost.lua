-- LOST: call, worker, epoch, channel
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.reach == 'held' and r.channel == tonumber(ARGV[4]) then put(r, 'reach', 'none') end
return state(r)
