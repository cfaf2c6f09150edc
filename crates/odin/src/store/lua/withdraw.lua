-- WITHDRAW: call, node, request
local r = record(ARGV[1])
if not r then
  redis.call('SET', key('withdrawn', ARGV[1]), now + TOMBSTONE, 'PX', TOMBSTONE + SLACK)
  return 'missing'
end
if not is_of(r, ARGV[2], ARGV[3]) then return 'missing' end
if r.run == 'queued' then
  close_cancelled(r)
elseif r.run ~= 'cancelled' or r.epoch > 0 then
  -- A call that was cancelled while it ran has run.
  return 'running'
end
-- Its client may send it again, also under the same key.
forget_retry(r)
return 'withdrawn'
