-- An endpoint failed once more; returns for how many ms it is closed to calls now.
local endpoint, threshold, pause, memory = unpack(ARGV, 5)
local L = open_ledger()
local failures, closed = L.key('failures:' .. endpoint), L.key('closed:' .. endpoint)
local count = redis.call('INCR', failures)
redis.call('PEXPIRE', failures, pause + memory)
if count >= tonumber(threshold) then redis.call('SET', closed, 1, 'PX', pause) end
return math.max(0, redis.call('PTTL', closed))
