-- BEAT: worker, fresh generation, then call, epoch, subscribed for each
local worker = ARGV[1]

local function beat(call, epoch, subscribed)
  local r, gone = owned(call, worker, epoch)
  if not r then return gone end
  own(r, worker)
  if redis.call('PTTL', r.key) < LIFE / 2 then live(r) end
  drop_silent_node(r)
  local late = (r.reach == 'offered' and now >= r.since + OFFER)
    or (r.reach == 'held' and not subscribed and now >= r.since + GATE)
  if late then put(r, 'reach', 'none') end
  return state(r)
end

local reply = { generation(ARGV[2]), now }
for i = 3, #ARGV, 3 do
  -- A record that can't be worked on must not stand in the way of the others.
  local valid, view = pcall(beat, ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1')
  table.insert(reply, valid and view or 'missing')
end
return reply
