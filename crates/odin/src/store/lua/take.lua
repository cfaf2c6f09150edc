-- TAKE: call, server, worker, receipt, attempt, rerun, fresh generation
local worker, attempt, rerun = ARGV[3], ARGV[5], ARGV[6]
redis.call('ZREM', key('read', ARGV[2]), ARGV[1])
local r = record(ARGV[1])
if not r or r.closed == '1' then return false end
-- Repeated, because the reply was lost: else nobody would run the call.
local again = r.run == 'running' and r.owner == worker and r.attempt == attempt
if not again then
  if r.run ~= 'queued' then return false end
  drop_silent_node(r)
  if r.cancel == '1' or (r.reach == 'none' and not is_kept(r)) then
    close_cancelled(r)
    return false
  end
  remove_line(r.server, r.call, r.by, r.of, true)
  put(r, 'run', 'running', 'epoch', r.epoch + 1, 'rerun', rerun, 'owner', worker, 'attempt', attempt)
end
own(r, worker)
live(r)
return { generation(ARGV[7]), snapshot(r) }
