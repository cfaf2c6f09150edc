-- EMIT / APPEND: call, worker, epoch, first, events...
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
if r.run ~= 'running' then return 'fenced' end
drop_silent_node(r)
local first, hi, events = tonumber(ARGV[4]), r.hi, key('log', r.call)
for i = 5, #ARGV do
  -- A repeated command, after a reply was lost, changes nothing.
  local number = first + i - 5
  if number > hi then
    hi = number
    if keeps_log(r) then redis.call('RPUSH', events, ARGV[i]) end
  end
end
if hi > r.hi then
  put(r, 'hi', hi)
  redis.call('PEXPIRE', events, LIFE)
end
nudge_waiting(r)
return state(r)
