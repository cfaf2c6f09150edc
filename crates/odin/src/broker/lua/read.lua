-- READ: call, node, request, from
local r = record(ARGV[1])
if not r or r.closed == '1' or not is_at(r, ARGV[2], ARGV[3]) then return false end
local events, answer = log(r, ARGV[4]), out(r)
if answer then finish(r) end
return { events, answer }
