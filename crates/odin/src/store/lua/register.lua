-- REGISTER, and ADOPT in the worker's name: call, worker, rerun or '' (a backend doesn't know it), fresh generation, ids
-- or '', the order's fields with their values.
local call, worker, rerun, ids = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local known = record(call)
if known then
  local r, gone = known, nil
  if not is_adopted_of(known, worker, 1) then
    r, gone = owned(call, worker, 1)
  elseif rerun ~= '' then
    put(r, 'attempt', '')
  end
  if not r then return gone end
  if rerun ~= '' and not r.rerun then put(r, 'rerun', rerun) end
  own(r, worker)
  return { generation(ARGV[4]), state(r) }
end

local at = create(call, ids, unpack(ARGV, 6))
redis.call('HSET', at, 'run', 'running', 'epoch', 1, 'owner', worker)
if rerun ~= '' then redis.call('HSET', at, 'rerun', rerun) else redis.call('HSET', at, 'attempt', 'adopted') end
local r = record(call)
-- The cancellation came while nobody knew the call.
local ahead = ids ~= '' and tonumber(redis.call('GET', key('cancel', ids)))
if ahead and now < ahead then
  close_cancelled(r)
  return 'missing'
end
-- For a worker that lives, and has just seen the break itself, a beat more.
own(r, worker, rerun == '' and math.floor(LEASE / 3) or 0)
live(r)
count_open(r.server, call, r.by, r.of)
return { generation(ARGV[4]), state(r) }
