-- Uses up what is good for once: name, in whose name, life in milliseconds
local at = key('used', ARGV[1])
if redis.call('SET', at, ARGV[2], 'NX', 'PX', ARGV[3]) then return ARGV[2] end
return redis.call('GET', at)
