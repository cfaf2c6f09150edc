-- FINISH: call, worker, epoch, linked node or '', out
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.run == 'running' then
  put(r, 'run', 'done', 'out', ARGV[5])
elseif r.run ~= 'done' or out(r) ~= ARGV[5] then
  return 'fenced'
end
drop_silent_node(r)
hint_waiting(r, ARGV[4])
return state(r)
