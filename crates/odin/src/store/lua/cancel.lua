-- CANCEL of all calls with this session and request id: ids
local ids = ARGV[1]
for _, call in ipairs(redis.call('SMEMBERS', key('ids', ids))) do
  local r = record(call)
  if not r then
    redis.call('SREM', key('ids', ids), call)
  elseif r.closed == '0' and r.cancel == '0' and r.run ~= 'done' then
    put(r, 'cancel', '1')
    -- The backend that waits must learn of it too, and a closed record no longer says which.
    hint_owner(r)
    hint_waiting(r)
    if r.run == 'queued' then close_cancelled(r) end
  end
end
-- Always: the cancelled request may be still to come, behind an older one with the same id.
redis.call('SET', key('cancel', ids), now + CANCEL_AHEAD, 'PX', CANCEL_AHEAD + SLACK)
