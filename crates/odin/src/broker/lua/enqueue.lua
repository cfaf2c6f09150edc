-- ENQ: call, server, ids or '', number of the line's fields, those with their values, the order's likewise
local call, server, ids, line = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if record(call) then return 'accepted' end
if ids ~= '' then
  local ahead = tonumber(redis.call('GET', key('cancel', ids)))
  if ahead and now < ahead then return 'cancelled' end
end

local queue = key('q', server)
local waiting = redis.call('XLEN', queue)
if waiting >= QUEUE then
  -- Lines that a worker has read don't wait any more. No group yet: nothing was read.
  local pending = redis.pcall('XPENDING', queue, GROUP)
  if not pending.err then waiting = waiting - pending[1] end
  if waiting >= QUEUE then return 'full' end
end

local at = key('call', call)
redis.call('DEL', at, key('log', call), key('inbox', call))
redis.call('HSET', at, 'run', 'queued', 'epoch', 0, 'owner', '', 'rerun', 'unsafe', 'hi', 0, 'channels', 0,
  'enqueued', now, 'finished', 0, 'reach', 'node', 'cancel', '0', 'closed', '0', unpack(ARGV, 5 + line))
redis.call('PEXPIRE', at, LIFE)
if ids ~= '' then
  redis.call('SADD', key('ids', ids), call)
  redis.call('PEXPIRE', key('ids', ids), LIFE)
end
redis.call('XADD', queue, '*', unpack(ARGV, 5, 4 + line))
redis.call('PEXPIRE', queue, LIFE)
return 'accepted'
