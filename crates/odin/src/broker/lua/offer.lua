-- OFFER: call, node, request, ticket, may hold
local call, node, request, ticket, may_hold = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local r = record(call)
if not r then return 'missing' end
if r.run == 'cancelled' then return 'cancelled' end
local own, answer = r.node == node and r.request == request, out(r)
if own and r.closed == '1' and answer then
  -- The backend was taken for dead while the call was finished, and is not.
  return { answer }
elseif own and r.closed == '0' and r.reach == 'none' then
  put(r, 'reach', 'node', 'at_node', node, 'at_request', request)
elseif r.closed == '1' or not is_at(r, node, request) then
  return 'missing'
end
if r.run == 'done' and answer and (r.hi == 0 or not may_hold or r.via == 'backend') then
  finish(r)
  return { answer }
end
if r.run == 'queued' and now < r.enqueued + START then return 'wait' end
if not may_hold or r.via ~= 'pushpin' then return 'wait' end
put(r, 'reach', 'offered', 'ticket', ticket, 'since', now)
redis.call('SET', key('ticket', ticket), call .. ' ' .. (now + TOMBSTONE), 'PX', TOMBSTONE + SLACK)
return 'offered'
