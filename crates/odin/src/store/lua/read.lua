-- READ: call, node, request, from
local node, request = ARGV[2], ARGV[3]
local r = record(ARGV[1])
if not r or not is_of(r, node, request) then return 'missing' end
if r.run == 'cancelled' then return 'cancelled' end
local answer = out(r)
if not (r.closed == '1' and answer) and not ask(r, node, request) then return 'missing' end
if r.run == 'queued' then return 'queued' end
local events = log(r, ARGV[4])
if answer and r.closed == '0' then finish(r) end
return { events, answer }
