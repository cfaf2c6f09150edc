-- Lines that a worker read and did not take: server, worker, most
local queue, worker, most = key('q', ARGV[1]), ARGV[2], tonumber(ARGV[3])
local lines, cursor = {}, '0-0'
repeat
  local got = redis.pcall('XAUTOCLAIM', queue, GROUP, worker, UNDELIVERED, cursor, 'COUNT', most - #lines)
  -- No group: nothing was ever read.
  if got.err then return lines end
  cursor = got[1]
  for _, line in ipairs(got[2]) do
    if line and line[2] then table.insert(lines, line) end
  end
until cursor == '0-0' or #lines >= most

-- Names of workers that are long gone.
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', queue, GROUP)) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer.name ~= worker and consumer.pending == 0 and consumer.idle > CONSUMER then
    redis.call('XGROUP', 'DELCONSUMER', queue, GROUP, consumer.name)
  end
end
redis.call('PEXPIRE', queue, LIFE)
return lines
