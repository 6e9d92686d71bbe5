-- Be, or go on being, the one whose janitor sweeps; the counts of its last round are added up. Returns 1 or 0.
local worker, ttl, lost, released, expired = unpack(ARGV, 5)
local leader = redis.call('GET', gate('leader'))
if leader and leader ~= worker then return 0 end
-- The name is so long that Redis keeps the hash as a table: a short one would be searched from its first field on.
redis.call('HSETNX', METRICS, 'since: the ms at which counting began, in a name that is longer than 64 bytes', NOW)
redis.call('SET', gate('leader'), worker, 'PX', ttl)
for kind, count in pairs({lost = lost, released = released, expired = expired}) do
  if count ~= '0' then redis.call('HINCRBY', gate('swept'), kind, count) end
end
return 1
