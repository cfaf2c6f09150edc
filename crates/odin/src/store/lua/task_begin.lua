-- BEGIN: call, worker, epoch, handle, run, job, tool, lost, ttl, poll, created, optional info
local r, gone = owned(ARGV[1], ARGV[2], ARGV[3])
if not r then return gone end
local handle = ARGV[4]
local again = r.run == 'done' and out(r) == handle
if r.run ~= 'running' and not again then return 'fenced' end
drop_silent_node(r)
if again then return { 'created', state(r) } end
if r.reach == 'none' and not is_kept(r) then return { 'nobody', state(r) } end

local principal, organisation, by, of =
  unpack(redis.call('HMGET', r.key, 'principal', 'organisation', 'by', 'of'))
principal, organisation, by, of = principal or '', organisation or '', by or '', of or ''
local ttl = tonumber(ARGV[9])
local all, open = owners('tasks', principal), owners('open', principal)
redis.call('ZREMRANGEBYSCORE', all, '-inf', now)
redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
if redis.call('ZCARD', all) >= TASKS or redis.call('ZCARD', open) >= TASKS_OPEN then return 'full' end

local t = { id = r.call, key = key('task', r.call), principal = principal, organisation = organisation, by = by,
  of = of, server = r.server, tool = ARGV[7], run = ARGV[5], expires = now + ttl }
redis.call('DEL', t.key, key('asks', t.id), key('answers', t.id))
put(t, 'principal', principal, 'organisation', organisation, 'by', by, 'of', of)
put(t, 'server', t.server, 'tool', t.tool, 'job', ARGV[6], 'lost', ARGV[8], 'ttl', ARGV[9],
  'poll', ARGV[10], 'created', ARGV[11], 'updated', ARGV[11], 'expires', t.expires, 'status', 'working', 'round', 1,
  'run', t.run)
set_or_drop(t, 'info', (optional(12)))
keep(t, t.key)
for _, at in ipairs({ all, open }) do
  redis.call('ZADD', at, t.expires, t.id)
  if redis.call('PTTL', at) < t.expires - now + SLACK then keep(t, at) end
end
start_run(t)
put(r, 'run', 'done', 'out', handle)
hint_waiting(r)
return { 'created', state(r) }
