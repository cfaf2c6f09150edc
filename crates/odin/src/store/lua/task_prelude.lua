-- What the scripts of tasks share, after prelude.lua. The transitions are those of call/task/record.rs, under the same
-- names; a test drives both with the same commands and compares every reply.
--   task:T   hash  the task, named by the call that began it
--   asks:T   hash  key -> question that the client has not answered      answers:T  hash  key -> its answer
--   tasks:P  zset  a principal's tasks -> their ends                     open:P     zset  those that are not over
-- Two more constants: TASKS, TASKS_OPEN (counts).
local TASK = { 'principal', 'server', 'tool', 'status', 'expires', 'round', 'run', 'updated',
  'organisation', 'by', 'of' }
local VIEW = { 'status', 'note', 'created', 'updated', 'ttl', 'poll', 'outcome', 'info' }
local OVER = { completed = true, failed = true, cancelled = true }

-- The task without its long texts.
local function task(id)
  local at = key('task', id)
  local values = redis.pcall('HMGET', at, unpack(TASK))
  if values.err then return nil end
  local t = { id = id, key = at }
  for i, field in ipairs(TASK) do t[field] = values[i] end
  for _, field in ipairs({ 'expires', 'round', 'updated' }) do
    t[field] = tonumber(t[field])
    if not t[field] then return nil end
  end
  if not t.status or now >= t.expires then return nil end
  return t
end

-- The task for its owner.
local function task_of(id, principal)
  local t = task(id)
  if t and t.principal == principal then return t end
end

local function owners(kind, principal)
  return key(kind, redis.sha1hex(principal))
end

local function view(t)
  local values = redis.call('HMGET', t.key, unpack(VIEW))
  table.insert(values, 1, t.id)
  table.insert(values, redis.call('HGETALL', key('asks', t.id)))
  return values
end

local function is_at(t, run)
  return t.status == 'working' and t.run == run
end

-- Clocks of several machines differ; time does not go back.
local function touch(t, at)
  put(t, 'updated', math.max(t.updated, tonumber(at)))
end

-- Keeps a key of the task for as long as the task.
local function keep(t, at)
  redis.call('PEXPIRE', at, t.expires - now + SLACK)
end

-- Queues the task's current round, however long the queue is: its number is bounded by that of the tasks.
local function start_run(t)
  local server = t.server .. '/tasks'
  local at, line = key('call', t.run), next_number(server)
  local by, of, time = t.by or '', t.of or '', math.max(LIFE, t.expires - now + SLACK)
  redis.call('DEL', at, key('log', t.run), key('inbox', t.run))
  redis.call('HSET', at, 'run', 'queued', 'epoch', 0, 'owner', '', 'rerun', 'unsafe', 'events', 0, 'channels', 0,
    'enqueued', now, 'asked', now, 'reach', 'none', 'cancel', '0', 'closed', '0', 'server', server, 'job', '',
    'era', 'stateful', 'via', 'backend', 'tool', t.tool, 'assertion', '', 'principal', t.principal,
    'organisation', t.organisation or '', 'by', by, 'of', of, 'line', line,
    'lost', redis.call('HGET', t.key, 'lost') or '', 'node', '', 'request', 0, 'task', t.id)
  redis.call('PEXPIRE', at, time)
  add_line(server, t.run, by, of, line, time)
  ring(server, t.run, line, by, of, 0, '+' .. t.tool)
end

local function go_on(t, run)
  put(t, 'status', 'working', 'round', t.round + 1, 'run', run)
  start_run(t)
end

local function set_or_drop(t, field, value)
  if value then put(t, field, value) else redis.call('HDEL', t.key, field) end
end

local function close_task(t, status, outcome, note)
  put(t, 'status', status, 'run', '', 'job', '')
  set_or_drop(t, 'outcome', outcome)
  set_or_drop(t, 'note', note)
  redis.call('HDEL', t.key, 'state')
  redis.call('DEL', key('asks', t.id), key('answers', t.id))
  redis.call('ZREM', owners('open', t.principal), t.id)
end

-- An argument that may be missing: '0', or '1' and the text.
local function optional(i)
  if ARGV[i] == '1' then return ARGV[i + 1], i + 2 end
  return nil, i + 1
end
