-- Returns for how many ms an endpoint is closed to calls. When it was closed and its pause is over, the first who asks
-- is to try it, and for the others it is closed meanwhile.
local endpoint, threshold, probe = unpack(ARGV, 5)
local L = open_ledger()
local closed = L.key('closed:' .. endpoint)
local left = redis.call('PTTL', closed)
if left > 0 then return left end
local failures = tonumber(redis.call('GET', L.key('failures:' .. endpoint)) or 0)
if failures >= tonumber(threshold) then redis.call('SET', closed, 1, 'PX', probe) end
return 0
