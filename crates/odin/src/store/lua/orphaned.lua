-- What to say on a channel that is subscribed: call, channel
local r = record(ARGV[1])
if not r then return { 0, false } end
if r.closed == '0' and r.reach == 'held' and r.channel == tonumber(ARGV[2]) then return false end
return { r.events, r.era == 'stateless' and redis.call('HGET', r.key, 'lost') }
