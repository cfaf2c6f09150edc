-- ENQ: call, server, ids or '', the retry's name and fingerprint or '', whom it counts for, the order's fields with
-- their values
local call, server, ids, retry, fingerprint, by, of = unpack(ARGV, 1, 7)
local withdrawn = tonumber(redis.call('GET', key('withdrawn', call)))
if withdrawn and now < withdrawn then return 'cancelled' end
if record(call) then return 'accepted' end
if retry ~= '' then
  local known = redis.call('GET', key('retry', retry))
  local r = known and record(known)
  if r and r.retry == retry then return { known, r.fingerprint == fingerprint and 1 or 0 } end
end
if ids ~= '' then
  local ahead = tonumber(redis.call('GET', key('cancel', ids)))
  if ahead and now < ahead then return 'cancelled' end
end

if has_most(server, by, CALLS_BY) then return 'principal' end
if has_most(server, of, CALLS_OF) then return 'organisation' end
if redis.call('ZCARD', key('waiting', server)) >= QUEUE then return 'full' end

local line = next_number(server)
local at = create(call, ids, unpack(ARGV, 8))
redis.call('HSET', at, 'run', 'queued', 'epoch', 0, 'owner', '', 'rerun', 'unsafe', 'line', line)
if retry ~= '' then redis.call('SET', key('retry', retry), call, 'PX', LIFE) end
local stream = redis.call('HGET', at, 'stream')
if stream then
  -- The stream stands already.
  redis.call('HSET', at, 'reach', 'held', 'channels', 1, 'channel', 1, 'from', 0, 'gate', '0', 'since', now,
    'ticket', '')
end
add_line(server, call, by, of, line, LIFE)
count_open(server, call, by, of)
local tool = redis.call('HGET', at, 'tool')
ring(server, call, line, by, of, 0, tool and '+' .. tool or '-')
return 'accepted'
