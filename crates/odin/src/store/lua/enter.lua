-- Adds a member to a group, or renews it: group, member, life in milliseconds, most members
local at = key('group', ARGV[1])
redis.call('ZREMRANGEBYSCORE', at, '-inf', now)
if not redis.call('ZSCORE', at, ARGV[2]) and redis.call('ZCARD', at) >= tonumber(ARGV[4]) then return 0 end
redis.call('ZADD', at, now + ARGV[3], ARGV[2])
if redis.call('PTTL', at) < tonumber(ARGV[3]) + SLACK then redis.call('PEXPIRE', at, ARGV[3] + SLACK) end
return 1
