-- What all scripts share. The transitions are those of call/ (record.rs, takeover.rs), under the same names; a test drives
-- both with the same commands and compares every reply.
--
-- Rust puts the site's constants in front: LEASE, SILENCE, OFFER, GATE, START, KEEP, TOMBSTONE, UNDELIVERED,
-- CANCEL_AHEAD, LIFE, SLACK (milliseconds), QUEUE, CALLS_BY, CALLS_OF, BELL, INBOX, SESSION_FIELDS (counts), and `now`
-- (milliseconds of Redis' clock).
--
-- KEYS[1] is `asgard:`. Every key begins with it:
--   call:C    hash    the record          log:C    list  its kept events     inbox:C  list  for its worker
--   leases:SERVER  zset  call -> end of its lease; and what queue.lua has
--   ticket:T  "C until"                   withdrawn:C  until  a call that is refused if it still comes
--   ids:I     set     calls of (session, request id)      cancel:I  until   a cancellation ahead of its call
--   session:S  hash   fields of a session                 generation      names this memory
--   retry:R    C      the call of a retry's key           park:T          a stream on its way to Pushpin
--   group:G    zset   members of a group -> their end         used:N         in whose name a thing was used up

-- The record without its long texts. A key of another kind, or a record without its numbers, is none.
-- Written out, without loops: this is half of what a script costs.
local function record(call)
  local at = key('call', call)
  local v = redis.pcall('HMGET', at,
    'run', 'epoch', 'events', 'channels', 'enqueued', 'era', 'via', 'server', 'reach', 'at_node', 'at_request',
    'ticket', 'since', 'channel', 'from', 'gate', 'owner', 'rerun', 'cancel', 'closed', 'expires', 'session', 'ids',
    'node', 'request', 'retry', 'fingerprint', 'stream', 'task', 'asked', 'attempt', 'fetched', 'by', 'of', 'line')
  if v.err then return nil end
  local r = {
    call = call, key = at,
    run = v[1], epoch = tonumber(v[2]), events = tonumber(v[3]), channels = tonumber(v[4]),
    enqueued = tonumber(v[5]), era = v[6], via = v[7], server = v[8], reach = v[9], at_node = v[10],
    at_request = v[11], ticket = v[12], since = tonumber(v[13]) or 0, channel = tonumber(v[14]) or 0,
    from = tonumber(v[15]) or 0, gate = v[16], owner = v[17], rerun = v[18], cancel = v[19], closed = v[20],
    expires = v[21], session = v[22], ids = v[23], node = v[24], request = v[25], retry = v[26], fingerprint = v[27],
    stream = v[28], task = v[29], asked = tonumber(v[30]) or 0, attempt = v[31], fetched = tonumber(v[32]) or 0,
    by = v[33] or '', of = v[34] or '', line = tonumber(v[35]) or 0,
  }
  if not (r.epoch and r.events and r.channels and r.enqueued) then return nil end
  local expires = tonumber(r.expires)
  if expires and now >= expires then return nil end
  return r
end

-- A new record with the fields that are given. `ids` or '': what a cancellation finds it by.
local function create(call, ids, ...)
  local at = key('call', call)
  redis.call('DEL', at, key('log', call), key('inbox', call))
  redis.call('HSET', at, ...)
  redis.call('HSET', at, 'events', 0, 'channels', 0, 'enqueued', now, 'asked', now, 'cancel', '0', 'closed', '0')
  redis.call('PEXPIRE', at, LIFE)
  if ids ~= '' then
    redis.call('SADD', key('ids', ids), call)
    redis.call('PEXPIRE', key('ids', ids), LIFE)
  end
  return at
end

-- Changes fields: put(r, 'run', 'done', 'out', out).
local function put(r, ...)
  redis.call('HSET', r.key, ...)
  for i = 1, select('#', ...), 2 do r[select(i, ...)] = select(i + 1, ...) end
end

local function out(r)
  return redis.call('HGET', r.key, 'out')
end

local function log(r, from)
  return redis.call('LRANGE', key('log', r.call), from, -1)
end

local function keeps_log(r)
  return r.era == 'stateful' or r.via == 'backend'
end

-- In the order of STATE in redis/record.rs.
local function state(r)
  return { r.events, r.cancel, r.reach, r.at_node, r.at_request, r.asked, r.ticket, r.since, r.channel, r.from, r.gate }
end

local function snapshot(r)
  return { redis.call('HGETALL', r.key), log(r, 0) }
end

-- Whether a backend made this record in the worker's name, and the worker has not registered yet. To a worker that
-- registered before, it is as if there was none: what the call said is not in it, since this Redis has lost that.
local function is_adopted_of(r, worker, epoch)
  return r and r.attempt == 'adopted' and r.closed ~= '1' and r.epoch == tonumber(epoch) and r.owner == worker
end

-- The record for its owner; else nothing, and why.
local function owned(call, worker, epoch)
  local r = record(call)
  if not r or r.closed == '1' or is_adopted_of(r, worker, epoch) then return nil, 'missing' end
  if r.epoch ~= tonumber(epoch) or r.owner ~= worker then return nil, 'fenced' end
  return r
end

local function is_at(r, node, request)
  return r.reach == 'node' and r.at_node == node and r.at_request == request
end

-- Whether the call is this request's: it came with it, or joined or resumed it last.
local function is_of(r, node, request)
  return r.node == node and r.request == request
end

-- The client is at this request from now on.
local function wait_at(r, node, request)
  put(r, 'node', node, 'request', request, 'reach', 'node', 'at_node', node, 'at_request', request, 'asked', now)
end

-- The call's own request asks for it. False when the call is over, or the client went on to Pushpin.
local function ask(r, node, request)
  if r.closed == '1' or r.reach == 'offered' or r.reach == 'held' then return false end
  if r.reach == 'none' then wait_at(r, node, request) else put(r, 'asked', now) end
  return true
end

local function drop_silent_node(r)
  if r.reach == 'node' and now >= r.asked + SILENCE then put(r, 'reach', 'none') end
end

local function own(r, worker, more)
  if r.owner ~= worker then put(r, 'owner', worker) end
  redis.call('ZADD', key('leases', r.server), now + LEASE + (more or 0), r.call)
end

-- Nothing outlives its parts by more than LIFE, whoever dies; who is at work renews it.
local function live(r)
  redis.call('PEXPIRE', r.key, LIFE)
  redis.call('PEXPIRE', key('log', r.call), LIFE)
  redis.call('PEXPIRE', key('inbox', r.call), LIFE)
  redis.call('PEXPIRE', key('leases', r.server), LIFE)
  if r.ids then redis.call('PEXPIRE', key('ids', r.ids), LIFE) end
  if r.retry then redis.call('PEXPIRE', key('retry', r.retry), LIFE) end
  if not r.task then count_open(r.server, r.call, r.by, r.of, true) end
end

-- A call that is over waits in no queue, and counts for nobody.
local function leave(r)
  redis.call('ZREM', key('leases', r.server), r.call)
  redis.call('ZREM', key('read', r.server), r.call)
  remove_line(r.server, r.call, r.by, r.of)
  if not r.task then release(r.server, r.call, r.by, r.of) end
end

-- Whether somebody may ask for it again, so that it goes on without a client.
local function is_kept(r)
  return r.era == 'stateful' or r.retry
end

local function close(r, ...)
  leave(r)
  redis.call('DEL', key('inbox', r.call))
  if r.ids then redis.call('SREM', key('ids', r.ids), r.call) end
  put(r, 'closed', '1', 'owner', '', 'attempt', '', 'reach', 'none', 'job', '', ...)
end

-- A repetition of the call's request is a call of its own from now on.
local function forget_retry(r)
  if r.retry and redis.call('GET', key('retry', r.retry)) == r.call then redis.call('DEL', key('retry', r.retry)) end
end

local function expire(r, time)
  put(r, 'expires', now + time)
  redis.call('PEXPIRE', r.key, time + SLACK)
  redis.call('PEXPIRE', key('log', r.call), time + SLACK)
end

local function finish(r)
  local cancelled = r.run == 'cancelled'
  if cancelled or redis.call('HEXISTS', r.key, 'out') == 1 then
    close(r)
    -- Kept for a while in any case: the reply that brought the answer may be lost.
    expire(r, is_kept(r) and not cancelled and KEEP or TOMBSTONE)
  else
    leave(r)
    redis.call('DEL', r.key, key('log', r.call), key('inbox', r.call))
    if r.ids then redis.call('SREM', key('ids', r.ids), r.call) end
    forget_retry(r)
    r.closed, r.reach = '1', 'none'
  end
end

local function close_cancelled(r)
  close(r, 'run', 'cancelled')
  redis.call('HDEL', r.key, 'out')
  redis.call('DEL', key('log', r.call))
  expire(r, TOMBSTONE)
end

-- Hints: hints, never the truth.
local function hint_node(node, request)
  redis.call('PUBLISH', 'asgard:node:' .. node, request)
end

-- `linked`: the node that the worker itself tells, on their link.
local function hint_waiting(r, linked)
  if r.reach == 'node' and r.at_node ~= linked then hint_node(r.at_node, r.at_request) end
end

local function hint_owner(r)
  if r.owner and r.owner ~= '' then redis.call('PUBLISH', 'asgard:worker:' .. r.owner, r.call) end
end

-- Names this memory; `fresh` is random.
local function generation(fresh)
  local at = root .. 'generation'
  redis.call('SETNX', at, fresh)
  return redis.call('GET', at)
end
