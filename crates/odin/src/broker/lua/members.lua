-- The members of a group that have not expired: group
return redis.call('ZRANGEBYSCORE', key('group', ARGV[1]), '(' .. now, '+inf')
