-- CANCEL: task, principal, at
local t = task_of(ARGV[1], ARGV[2])
if not t then return false end
if OVER[t.status] then return { 0, view(t) } end
local r = t.run ~= '' and record(t.run)
touch(t, ARGV[3])
close_task(t, 'cancelled', nil, nil)
if r and r.closed == '0' and r.cancel == '0' and r.run ~= 'done' then
  put(r, 'cancel', '1')
  hint_owner(r)
  if r.run == 'queued' then close_cancelled(r) end
end
return { 1, view(t) }
