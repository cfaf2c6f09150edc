-- JOIN of a repeated request: call, name of the retry, node, request
local r = record(ARGV[1])
if not r or r.retry ~= ARGV[2] then return 'unknown' end
local answer = out(r)
if answer then return { answer } end
if r.run == 'cancelled' then return 'cancelled' end
if r.closed == '1' then return 'unknown' end
put(r, 'via', 'backend')
wait_at(r, ARGV[3], ARGV[4])
hint_owner(r)
return 'waits'
