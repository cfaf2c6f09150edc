-- BEGIN: call, epoch, handle, run, job, tool, lost, ttl, poll, created, optional info
local r, gone = owned(ARGV[1], ARGV[2])
if not r then return gone end
local handle = ARGV[3]
if r.run == 'done' and out(r) == handle then return { 'created', state(r) } end
if r.run ~= 'running' then return 'fenced' end
drop_dead_node(r)
if r.reach == 'none' and not is_kept(r) then return { 'nobody', state(r) } end

local principal, ttl = redis.call('HGET', r.key, 'principal') or '', tonumber(ARGV[8])
local all, open = owners('tasks', principal), owners('open', principal)
redis.call('ZREMRANGEBYSCORE', all, '-inf', now)
redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
if redis.call('ZCARD', all) >= TASKS or redis.call('ZCARD', open) >= TASKS_OPEN then return 'full' end

local t = { id = r.call, key = key('task', r.call), principal = principal, server = r.server, tool = ARGV[6],
  run = ARGV[4], expires = now + ttl }
redis.call('DEL', t.key, key('asks', t.id), key('answers', t.id))
put(t, 'principal', principal, 'server', t.server, 'tool', t.tool, 'job', ARGV[5], 'lost', ARGV[7], 'ttl', ARGV[8],
  'poll', ARGV[9], 'created', ARGV[10], 'updated', ARGV[10], 'expires', t.expires, 'status', 'working', 'round', 1,
  'run', t.run)
set_or_drop(t, 'info', (optional(11)))
keep(t, t.key)
for _, at in ipairs({ all, open }) do
  redis.call('ZADD', at, t.expires, t.id)
  if redis.call('PTTL', at) < t.expires - now + SLACK then keep(t, at) end
end
start_run(t)
put(r, 'run', 'done', 'out', handle, 'finished', now)
nudge_waiting(r)
return { 'created', state(r) }
