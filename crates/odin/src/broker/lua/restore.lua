-- A worker registers its call again: call, worker, epoch, number of fields, those with their values, events...
local call, worker, epoch, fields = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local known = record(call)
if known and known.epoch >= tonumber(epoch) then return 'fenced' end

local at = key('call', call)
redis.call('DEL', at, key('log', call), key('inbox', call))
redis.call('HSET', at, 'epoch', epoch, 'enqueued', now, 'owner', worker, 'closed', '0', 'since', now,
  'finished', now, unpack(ARGV, 5, 4 + fields))
for i = 5 + fields, #ARGV do redis.call('RPUSH', key('log', call), ARGV[i]) end
local r = record(call)
-- A backend that lives announces itself again within a lease; until then it has the benefit of doubt.
if r.reach == 'node' and not is_alive(r.at_node) then announce(r.at_node) end
own(r, worker)
if r.ids then redis.call('SADD', key('ids', r.ids), call) end
if r.retry then redis.call('SET', key('retry', r.retry), call) end
live(r)
nudge_waiting(r)
return state(r)
