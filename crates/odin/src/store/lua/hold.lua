-- HOLD: ticket, assertion
local ticket, assertion = ARGV[1], ARGV[2]
local known = redis.call('GET', key('ticket', ticket))
if not known then return false end
local call, ends = string.match(known, '^(%x+) (%d+)$')
if not call or now >= tonumber(ends) then return false end
local r = record(call)
if not r or r.closed == '1' or r.ticket ~= ticket then return false end
if not (r.reach == 'offered' or (r.reach == 'held' and r.gate == '0')) then return false end
if redis.call('HGET', r.key, 'assertion') ~= assertion then return false end
local channel = r.channels + 1
put(r, 'channels', channel, 'reach', 'held', 'channel', channel, 'from', 0, 'gate', '0', 'since', now)
return { call, channel, r.session }
