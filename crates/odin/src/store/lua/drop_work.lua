-- DROP: call, worker, epoch
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.cancel ~= '1' and not (r.era == 'stateless' and r.reach == 'none') then return state(r) end
hint_waiting(r)
close_cancelled(r)
return 'dropped'
