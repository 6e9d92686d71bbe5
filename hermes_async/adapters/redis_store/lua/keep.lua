-- Keep what an effect of a claimed call came to; returns 1, or 0 when the claim is not the caller's any more.
local cid, fence, name, value = unpack(ARGV, 5)
local L = open_ledger()
local line = redis.call('HGET', L.row(cid), 'line')
if not line or redis.call('HGET', L.key('claims'), line) ~= fence .. '/' .. cid then return 0 end
redis.call('HSET', L.row(cid), 'kept:' .. name, value)
return 1
