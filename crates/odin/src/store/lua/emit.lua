-- EMIT / APPEND: call, worker, epoch, first, log...
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.run ~= 'running' then return 'fenced' end
drop_silent_node(r)
local first, count, log = tonumber(ARGV[4]), r.events, key('log', r.call)
for i = 5, #ARGV do
  -- A repeated command, after a reply was lost, changes nothing.
  local number = first + i - 5
  if number > count then
    count = number
    if keeps_log(r) then redis.call('RPUSH', log, ARGV[i]) end
  end
end
if count > r.events then
  put(r, 'events', count)
  redis.call('PEXPIRE', log, LIFE)
end
hint_waiting(r)
return state(r)
