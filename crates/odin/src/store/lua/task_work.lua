-- WORK: task, run
local t = task(ARGV[1])
if not t or not is_at(t, ARGV[2]) then return false end
local job, state = unpack(redis.call('HMGET', t.key, 'job', 'state'))
return { job or '', t.round, redis.call('HGETALL', key('answers', t.id)), state, t.expires - now }
