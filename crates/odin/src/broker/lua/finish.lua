-- FINISH: call, epoch, out
local r, gone = owned(ARGV[1], ARGV[2])
if not r then return gone end
if r.run == 'running' then
  put(r, 'run', 'done', 'out', ARGV[3], 'finished', now)
elseif r.run ~= 'done' or out(r) ~= ARGV[3] then
  return 'fenced'
end
drop_dead_node(r)
nudge_waiting(r)
return state(r)
