-- RESUME: call, session, last, and of a backend that streams by itself: node, request
local session, last = ARGV[2], tonumber(ARGV[3])
local r = record(ARGV[1])
if not r or r.era ~= 'stateful' or r.session ~= session or r.stream then return false end
if r.run == 'cancelled' then return { {}, false } end
local events, answer = log(r, last), out(r)
local count = redis.call('LLEN', key('log', r.call))
if answer then
  if last <= count then table.insert(events, answer) end
  return { events, false }
end
if r.closed == '1' then return false end
if ARGV[4] then
  wait_at(r, ARGV[4], ARGV[5])
  hint_owner(r)
  return 'joined'
end
local channel = r.channels + 1
put(r, 'channels', channel, 'reach', 'held', 'channel', channel, 'from', count, 'gate', '0', 'since', now,
  'ticket', '')
hint_owner(r)
return { events, channel }
