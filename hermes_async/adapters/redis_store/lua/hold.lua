-- Keep claims alive; the arguments are rows and fences in turn. Returns the rows that are still claimed so.
local lease = ARGV[5]
local L = open_ledger()
local held = {}
for i = 6, #ARGV, 2 do
  local line = redis.call('HGET', L.row(ARGV[i]), 'line')
  if line and redis.call('HGET', L.key('claims'), line) == ARGV[i + 1] .. '/' .. ARGV[i] then
    redis.call('ZADD', L.ready(line), NOW + lease, line)
    held[#held + 1] = ARGV[i]
  end
end
return held
