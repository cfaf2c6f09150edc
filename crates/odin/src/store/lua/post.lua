-- A message of the client for a running call: call, session, message
local r = record(ARGV[1])
if not r or r.closed == '1' or r.session ~= ARGV[2] then return 0 end
local inbox = key('inbox', r.call)
if redis.call('LLEN', inbox) >= INBOX then return 0 end
redis.call('RPUSH', inbox, ARGV[3])
redis.call('PEXPIRE', inbox, LIFE)
hint_owner(r)
return 1
