-- ANSWER: task, principal, next, at, keys with their answers
local t = task_of(ARGV[1], ARGV[2])
if not t then return false end
local changed, asks, answers = 0, key('asks', t.id), key('answers', t.id)
if t.status == 'input_required' then
  for i = 5, #ARGV, 2 do
    if redis.call('HDEL', asks, ARGV[i]) == 1 then
      redis.call('HSET', answers, ARGV[i], ARGV[i + 1])
      changed = 1
    end
  end
end
if changed == 1 then
  touch(t, ARGV[4])
  keep(t, answers)
  if redis.call('HLEN', asks) == 0 then go_on(t, ARGV[3]) end
end
return { changed, view(t) }
