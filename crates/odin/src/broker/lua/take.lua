-- TAKE: call, server, worker, receipt, rerun, fresh generation
local worker, receipt, rerun = ARGV[3], ARGV[4], ARGV[5]
local queue = key('q', ARGV[2])
redis.pcall('XACK', queue, GROUP, receipt)
redis.call('XDEL', queue, receipt)
local r = record(ARGV[1])
if not r or r.closed == '1' or r.run ~= 'queued' then return false end
if r.cancel == '1' or (r.reach == 'none' and not is_kept(r)) then
  close_cancelled(r)
  return false
end
put(r, 'run', 'running', 'epoch', r.epoch + 1, 'rerun', rerun, 'owner', worker)
own(r, worker)
live(r)
return { generation(ARGV[6]), snapshot(r) }
