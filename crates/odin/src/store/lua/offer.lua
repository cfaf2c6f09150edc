-- OFFER: call, node, request, ticket, may hold
local call, node, request, ticket, may_hold = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local r = record(call)
if not r or not is_of(r, node, request) then return 'missing' end
if r.run == 'cancelled' then return 'cancelled' end
local answer = out(r)

local function offered()
  redis.call('SET', key('ticket', ticket), call .. ' ' .. (now + TOMBSTONE), 'PX', TOMBSTONE + SLACK)
  return 'offered'
end

-- Asked again, because the reply was lost: no answer after an offer, and no offer after an answer.
if (r.reach == 'offered' or r.reach == 'held') and r.ticket == ticket then return offered() end
if r.closed == '1' and answer then return { answer } end
if not ask(r, node, request) then return 'missing' end
if r.run == 'done' and answer and (r.events == 0 or not may_hold or r.via == 'backend') then
  finish(r)
  return { answer }
end
local queued = r.run == 'queued'
if queued and now < r.enqueued + START then return 'queued' end
if not may_hold or r.via ~= 'pushpin' then return queued and 'queued' or 'wait' end
put(r, 'reach', 'offered', 'ticket', ticket, 'since', now)
return offered()
