-- Stores a field of a session: session, field, value, life in milliseconds
local at = key('session', ARGV[1])
if redis.call('HLEN', at) >= SESSION_FIELDS and redis.call('HEXISTS', at, ARGV[2]) == 0 then
  redis.call('PEXPIRE', at, ARGV[4])
  return 0
end
redis.call('HSET', at, ARGV[2], ARGV[3])
redis.call('PEXPIRE', at, ARGV[4])
return 1
