-- A process says that it makes calls, for a while; 0: it leaves.
local caller, ttl = unpack(ARGV, 5)
local callers = open_ledger().key('callers')
redis.call('ZADD', callers, NOW + ttl, caller)
redis.call('ZREMRANGEBYSCORE', callers, '-inf', NOW)
return 0
