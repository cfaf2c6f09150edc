-- GET: task, principal, at
local t = task_of(ARGV[1], ARGV[2])
if not t then return false end
if t.status == 'working' then
  -- The call of the current round is nowhere: it is lost.
  local r = record(t.run)
  if not r or r.closed == '1' then
    touch(t, ARGV[3])
    close_task(t, 'failed', redis.call('HGET', t.key, 'lost') or '', nil)
  end
end
return view(t)
