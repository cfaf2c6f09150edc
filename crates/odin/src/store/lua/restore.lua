-- A worker registers its call again: call, worker, epoch, number of fields, those with their values, events...
local call, worker, epoch, fields = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local known = record(call)
-- Registered already; the reply was lost.
if owned(call, worker, epoch) then return state(known) end
local adopted = is_adopted_of(known, worker, epoch)
if known and known.epoch >= tonumber(epoch) and not adopted then return 'fenced' end
if known and known.run == 'queued' then leave(known) end

local at = key('call', call)
-- What a backend made of it meanwhile knows where the client is.
local place = { 'reach', 'at_node', 'at_request', 'ticket', 'since', 'channel', 'from', 'gate', 'asked', 'node', 'request',
  'fetched' }
local kept = adopted and redis.call('HMGET', at, unpack(place))
redis.call('DEL', at, key('log', call))
if not adopted then redis.call('DEL', key('inbox', call)) end
redis.call('HSET', at, unpack(ARGV, 5, 4 + fields))
redis.call('HSET', at, 'enqueued', now, 'owner', worker, 'closed', '0', 'since', now, 'asked', now)
if adopted then
  for i, name in ipairs(place) do
    if kept[i] then redis.call('HSET', at, name, kept[i]) else redis.call('HDEL', at, name) end
  end
  local channels = tonumber(redis.call('HGET', at, 'channels')) or 0
  if known.channels > channels then redis.call('HSET', at, 'channels', known.channels) end
  if known.cancel == '1' then redis.call('HSET', at, 'cancel', '1') end
end
for i = 5 + fields, #ARGV do redis.call('RPUSH', key('log', call), ARGV[i]) end
local r = record(call)
-- The cancellation came while nobody knew the call.
local ahead = r.ids and tonumber(redis.call('GET', key('cancel', r.ids)))
if ahead and now < ahead then put(r, 'cancel', '1') end
own(r, worker)
if r.ids then redis.call('SADD', key('ids', r.ids), call) end
if r.retry then redis.call('SET', key('retry', r.retry), call) end
live(r)
if not r.task then count_open(r.server, call, r.by, r.of) end
hint_waiting(r)
return state(r)
