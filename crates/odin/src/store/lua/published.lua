-- PUBLISHED: call, worker, epoch
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.cancel == '1' and r.run ~= 'done' then close_cancelled(r) else finish(r) end
return {}
