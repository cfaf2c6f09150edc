-- END of a round: task, run, worker, epoch, next, at, kind, then for 'asks' an optional state and keys with their
-- questions, for 'completed' the result, for 'failed' the error and an optional note
local t = task(ARGV[1])
-- Repeated, because the reply was lost.
if t and redis.call('HGET', t.key, 'ended') == ARGV[2] then return view(t) end
local r, gone = owned(ARGV[2], ARGV[3], ARGV[4])
if not r then return gone end
if r.cancel == '1' and r.run ~= 'done' then close_cancelled(r) else finish(r) end
if not t or r.task ~= t.id or not is_at(t, r.call) then return {} end
put(t, 'ended', r.call)
local kind = ARGV[7]
touch(t, ARGV[6])
if kind ~= 'asks' then
  close_task(t, kind, ARGV[8], (optional(9)))
  return view(t)
end
local text, first = optional(8)
set_or_drop(t, 'state', text)
set_or_drop(t, 'note', nil)
redis.call('DEL', key('answers', t.id))
for i = first, #ARGV, 2 do redis.call('HSET', key('asks', t.id), ARGV[i], ARGV[i + 1]) end
if first > #ARGV then
  go_on(t, ARGV[5])
else
  put(t, 'status', 'input_required', 'run', '')
  keep(t, key('asks', t.id))
end
return view(t)
