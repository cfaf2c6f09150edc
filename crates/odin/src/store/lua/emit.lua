-- EMIT / APPEND: call, worker, epoch, linked node or '', first, log...
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.run ~= 'running' then return 'fenced' end
drop_silent_node(r)
local first, count, log = tonumber(ARGV[5]), r.events, key('log', r.call)
for i = 6, #ARGV do
  -- A repeated command, after a reply was lost, changes nothing.
  local number = first + i - 6
  if number > count then
    count = number
    if keeps_log(r) then redis.call('RPUSH', log, ARGV[i]) end
  end
end
if count > r.events then
  put(r, 'events', count)
  redis.call('PEXPIRE', log, LIFE)
end
hint_waiting(r, ARGV[4])
return state(r)
