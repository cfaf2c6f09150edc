-- The members of a group that have not expired: group
local at = key('group', ARGV[1])
redis.call('ZREMRANGEBYSCORE', at, '-inf', now)
return redis.call('ZRANGE', at, 0, -1)
