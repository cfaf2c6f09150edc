-- Messages of the client for a running call: call, epoch
local r = record(ARGV[1])
if not r or r.epoch ~= tonumber(ARGV[2]) then return {} end
local inbox = key('inbox', r.call)
local messages = redis.call('LRANGE', inbox, 0, -1)
redis.call('DEL', inbox)
return messages
