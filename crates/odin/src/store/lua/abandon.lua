-- The client went away before anything was offered: call, node, request
local r = record(ARGV[1])
if r and r.closed == '0' and is_at(r, ARGV[2], ARGV[3]) then
  put(r, 'reach', 'none')
  hint_owner(r)
end
