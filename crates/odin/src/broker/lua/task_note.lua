-- NOTE: task, run, epoch, note, at
local r = owned(ARGV[2], ARGV[3])
if not r or r.run ~= 'running' then return false end
local t = task(ARGV[1])
if not t or not is_at(t, r.call) or redis.call('HGET', t.key, 'note') == ARGV[4] then return false end
put(t, 'note', ARGV[4])
touch(t, ARGV[5])
return view(t)
