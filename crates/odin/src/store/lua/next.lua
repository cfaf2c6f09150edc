-- The next lines of a queue, by turns over organisations, and within one over principals: server, most, slots that
-- an organisation and a principal may have, then names and how many slots each has
local server, most, bound_of, bound_by = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local named, taken = (#ARGV - 4) / 2, {}
for i = 5, #ARGV, 2 do taken[ARGV[i]] = tonumber(ARGV[i + 1]) end
local read, picked = key('read', server), {}

local function queued(call)
  local r = record(call)
  return r and r.closed == '0' and r.run == 'queued' and r
end

-- What a worker read and never took is back in its place.
for _, call in ipairs(redis.call('ZRANGEBYSCORE', read, '-inf', now - UNDELIVERED, 'LIMIT', 0, most)) do
  redis.call('ZREM', read, call)
  local r = queued(call)
  if r then add_line(server, call, r.by, r.of, r.line, math.max(LIFE, redis.call('PTTL', r.key))) end
end

-- Picks a line of the organisation. False when it has none that may be taken.
local function pick(of)
  local _, principals, organisations = lines_of(server, '', of)
  for _, by in ipairs(redis.call('ZRANGE', principals, 0, named + #picked)) do
    if (taken[by] or 0) < bound_by then
      local call = redis.call('ZRANGE', lines_of(server, by, of), 0, 0)[1]
      local r = call and queued(call)
      if not call then
        redis.call('ZREM', principals, by)
      elseif not r then
        remove_line(server, call, by, of)
      else
        remove_line(server, call, by, of, true)
        redis.call('ZADD', read, now, call)
        keep_for(read, LIFE)
        for _, name in ipairs({ by, of }) do taken[name] = (taken[name] or 0) + 1 end
        table.insert(picked, { call, redis.call('HGET', r.key, 'tool'), by, of, r.line })
      end
      return true
    end
  end
  if redis.call('EXISTS', principals) == 1 then return false end
  redis.call('ZREM', organisations, of)
  return true
end

local moved
repeat
  moved = false
  for _, of in ipairs(redis.call('ZRANGE', key('organisations', server), 0, named + most)) do
    if #picked >= most then break end
    if (taken[of] or 0) < bound_of and pick(of) then moved = true end
  end
until not moved or #picked >= most
if redis.call('EXISTS', key('waiting', server)) == 0 then redis.call('DEL', key('bell', server)) end
return picked
