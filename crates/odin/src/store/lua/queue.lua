-- What waits in a server's queue, and what is open there, by principal and organisation: so that all get their
-- turn, and none has more than its bound. `by` and `of` name a call's principal and organisation, S its server:
--   waiting:S        zset  call -> number of its line             number:S  the last number, and the last turn
--   lines:BY:S       zset  a principal's waiting calls -> number
--   principals:OF:S  zset  an organisation's principals with waiting calls -> their turn
--   organisations:S  zset  organisations with waiting calls -> their turn
--   read:S           zset  calls that a worker has read and not taken -> when
--   bell:S           list  what workers wait at: each line rings once
--   open:NAME:S      zset  open calls of a principal or an organisation -> when they are forgotten
local root = KEYS[1]

local function key(kind, name)
  return root .. kind .. ':' .. name
end

local function keep_for(at, time)
  if redis.call('PTTL', at) < time then redis.call('PEXPIRE', at, time) end
end

local function next_number(server)
  return redis.call('INCR', key('number', server))
end

local function lines_of(server, by, of)
  return key('lines', by .. ':' .. server), key('principals', of .. ':' .. server), key('organisations', server)
end

-- Puts a call into the queue. Whoever had nothing there gets its turn after all that wait already.
local function add_line(server, call, by, of, number, time)
  local lines, principals, organisations = lines_of(server, by, of)
  redis.call('ZADD', key('waiting', server), number, call)
  redis.call('ZADD', lines, number, call)
  redis.call('ZADD', principals, 'NX', number, by)
  redis.call('ZADD', organisations, 'NX', number, of)
  for _, at in ipairs({ key('waiting', server), key('number', server), lines, principals, organisations }) do
    keep_for(at, time)
  end
end

-- Takes a call out of the queue. `served`: it was its principal's and organisation's turn, and is now the others'.
local function remove_line(server, call, by, of, served)
  local lines, principals, organisations = lines_of(server, by, of)
  if redis.call('ZREM', key('waiting', server), call) + redis.call('ZREM', lines, call) == 0 then return end
  local turn = served and next_number(server)
  if redis.call('EXISTS', lines) == 0 then
    redis.call('ZREM', principals, by)
  elseif turn then
    redis.call('ZADD', principals, turn, by)
  end
  if redis.call('EXISTS', principals) == 0 then
    redis.call('ZREM', organisations, of)
  elseif turn then
    redis.call('ZADD', organisations, turn, of)
  end
end

-- Wakes a worker for a line: with the line itself, how many workers could not take it, and its tool. A key of
-- another kind costs no call: workers look by themselves.
local function ring(server, call, number, by, of, passed, tool)
  local bell = key('bell', server)
  redis.pcall('RPUSH', bell, table.concat({ call, number, by, of, passed, tool }, ' '))
  redis.pcall('LTRIM', bell, -BELL, -1)
  redis.call('PEXPIRE', bell, LIFE)
end

-- Whether a principal or an organisation has as many open calls as it may have.
local function has_most(server, name, most)
  local at = key('open', name .. ':' .. server)
  redis.call('ZREMRANGEBYSCORE', at, '-inf', now)
  return redis.call('ZCARD', at) >= most
end

-- Counts a call until it is released. Should nobody do that, the count ends when the record does.
local function count_open(server, call, by, of, only_known)
  for _, name in ipairs({ by, of }) do
    local at, ends = key('open', name .. ':' .. server), now + LIFE + SLACK
    if only_known then
      redis.pcall('ZADD', at, 'XX', ends, call)
    else
      redis.pcall('ZADD', at, ends, call)
    end
    redis.call('PEXPIRE', at, LIFE + SLACK)
  end
end

-- A key of another kind must not keep an answer from its client.
local function release(server, call, by, of)
  redis.pcall('ZREM', key('open', by .. ':' .. server), call)
  redis.pcall('ZREM', key('open', of .. ':' .. server), call)
end
