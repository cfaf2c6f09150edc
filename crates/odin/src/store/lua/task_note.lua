-- NOTE: task, run, worker, epoch, note, at
local r = owned(ARGV[2], ARGV[3], ARGV[4])
if not r or r.run ~= 'running' then return false end
local t = task(ARGV[1])
if not t or not is_at(t, r.call) or redis.call('HGET', t.key, 'note') == ARGV[5] then return false end
put(t, 'note', ARGV[5])
touch(t, ARGV[6])
return view(t)
