-- END of a round: run, worker, epoch, next, at, kind, then for 'asks' an optional state and keys with their questions, for
-- 'completed' the result, for 'failed' the error and an optional note
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.cancel == '1' and r.run ~= 'done' then close_cancelled(r) else finish(r) end
local t = r.task and task(r.task)
if not t or not is_at(t, r.call) then return {} end
local kind = ARGV[6]
touch(t, ARGV[5])
if kind ~= 'asks' then
  close_task(t, kind, ARGV[7], (optional(8)))
  return view(t)
end
local text, first = optional(7)
set_or_drop(t, 'state', text)
set_or_drop(t, 'note', nil)
redis.call('DEL', key('answers', t.id))
for i = first, #ARGV, 2 do redis.call('HSET', key('asks', t.id), ARGV[i], ARGV[i + 1]) end
if first > #ARGV then
  go_on(t, ARGV[4])
else
  put(t, 'status', 'input_required', 'run', '')
  keep(t, key('asks', t.id))
end
return view(t)
