-- CLAIM: server, worker, most, by
local server, worker, most = ARGV[1], ARGV[2], ARGV[3]
-- This Redis was paused since it was sent: the owners come first, with the beats that they sent meanwhile.
if now > tonumber(ARGV[4]) then return {} end
local leases = key('leases', server)

local function claim(r)
  if r.run == 'running' and r.cancel == '1' then
    close_cancelled(r)
    return nil
  end
  -- For a finished call as well: nothing of the old worker may come through later.
  put(r, 'epoch', r.epoch + 1, 'attempt', '')
  own(r, worker)
  live(r)
  drop_silent_node(r)
  local shut = false
  if r.reach == 'held' and r.gate == '1' and r.stream then
    -- The stream is not the call's own, and can't be resumed: what was accepted counts as sent.
    put(r, 'gate', '0', 'from', r.events, 'since', now)
  elseif r.reach == 'held' and r.gate == '1' and r.era == 'stateful' then
    -- The client's last event is not known here, so it resumes with Last-Event-ID.
    shut = r.channel
    put(r, 'reach', 'none')
  elseif r.reach == 'held' or r.reach == 'offered' then
    put(r, 'since', now)
  end
  local kind = 'publish'
  if redis.call('HEXISTS', r.key, 'out') == 0 then
    -- Unknown: the claimer decides, who knows the tool.
    if r.run == 'running' and r.rerun ~= 'unsafe' then
      kind = 'run'
    else
      put(r, 'run', 'done', 'out', redis.call('HGET', r.key, 'lost') or '')
    end
  end
  hint_waiting(r)
  return { r.call, kind, snapshot(r), shut }
end

local claimed = {}
for _, call in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, most)) do
  local r = record(call)
  local valid, reply = false, nil
  if r and r.closed == '0' and r.server == server then valid, reply = pcall(claim, r) end
  if not valid then
    redis.call('ZREM', leases, call)
  elseif reply then
    table.insert(claimed, reply)
  end
end
return claimed
