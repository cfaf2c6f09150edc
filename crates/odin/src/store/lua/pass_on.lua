-- A worker was woken for a line that it may not take: server, then the line as ring() has it
local server, call = ARGV[1], ARGV[2]
if redis.call('ZSCORE', key('waiting', server), call) then ring(server, unpack(ARGV, 2, 7)) end
