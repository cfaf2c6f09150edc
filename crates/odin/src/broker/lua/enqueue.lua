-- ENQ: call, server, ids or '', the retry's name and print or '', number of the line's fields, those with
-- their values, the order's likewise
local call, server, ids, retry, print = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local line = tonumber(ARGV[6])
local withdrawn = tonumber(redis.call('GET', key('withdrawn', call)))
if withdrawn and now < withdrawn then return 'cancelled' end
if record(call) then return 'accepted' end
if retry ~= '' then
  local known = redis.call('GET', key('retry', retry))
  local r = known and record(known)
  if r and r.retry == retry then return { known, r.print == print and 1 or 0 } end
end
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
  'enqueued', now, 'asked', now, 'reach', 'node', 'cancel', '0', 'closed', '0', unpack(ARGV, 7 + line))
redis.call('PEXPIRE', at, LIFE)
if ids ~= '' then
  redis.call('SADD', key('ids', ids), call)
  redis.call('PEXPIRE', key('ids', ids), LIFE)
end
if retry ~= '' then redis.call('SET', key('retry', retry), call, 'PX', LIFE) end
local stream = redis.call('HGET', at, 'stream')
if stream then
  -- The stream stands already.
  redis.call('HSET', at, 'reach', 'held', 'channels', 1, 'channel', 1, 'from', 0, 'gate', '0', 'since', now,
    'ticket', '')
end
redis.call('XADD', queue, '*', unpack(ARGV, 7, 6 + line))
redis.call('PEXPIRE', queue, LIFE)
return 'accepted'
