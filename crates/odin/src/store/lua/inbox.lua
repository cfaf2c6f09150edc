-- Messages of the client for a running call: call, worker, epoch, number of the last one that arrived
local r = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return { ARGV[4], {} } end
local inbox, after = key('inbox', r.call), tonumber(ARGV[4])
if r.fetched < after then
  local waiting = redis.call('LLEN', inbox)
  redis.call('LTRIM', inbox, after - r.fetched, -1)
  put(r, 'fetched', math.min(after, r.fetched + waiting))
end
local messages = redis.call('LRANGE', inbox, 0, -1)
return { r.fetched + #messages, messages }
