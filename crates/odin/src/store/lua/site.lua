-- A node joins its site: what it says must fit what the others have said. A fact is a line, or several
-- (keys, while they are being changed): two facts fit that share a line.
-- ARGV: how long the facts live, in milliseconds; then names and facts.
-- Returns nothing, or the name of what differs and what the others have.
local key = KEYS[1] .. 'site'

local function fits(one, other)
  for word in string.gmatch(one, '[^\n]+') do
    for known in string.gmatch(other, '[^\n]+') do
      if word == known then return true end
    end
  end
  return false
end

for at = 2, #ARGV, 2 do
  local known = redis.call('HGET', key, ARGV[at])
  if known and not fits(ARGV[at + 1], known) then return {ARGV[at], known} end
end
for at = 2, #ARGV, 2 do
  redis.call('HSET', key, ARGV[at], ARGV[at + 1])
end
redis.call('PEXPIRE', key, ARGV[1])
return {}
