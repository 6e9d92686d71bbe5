-- A worker says how many tasks of a lane it can run at once for a while, and which agents it knows; 0: it leaves.
-- Returns {1, READY}.
local worker, lane, slots, ttl, agents = unpack(ARGV, 5)
if tonumber(slots) > 0 then
  redis.call('ZADD', gate('workers', lane), NOW + ttl, worker)
  redis.call('HSET', gate('sizes'), worker, slots)
  redis.call('HSET', gate('agents'), worker, agents)
else
  redis.call('ZADD', gate('workers', lane), 0, worker)
end
for _, name in ipairs(LANES) do
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', gate('workers', name), '-inf', NOW)) do
    redis.call('ZREM', gate('workers', name), gone)
    redis.call('HDEL', gate('sizes'), gone)
    redis.call('HDEL', gate('agents'), gone)
  end
  local sum = 0
  for _, alive in ipairs(redis.call('ZRANGE', gate('workers', name), 0, -1)) do
    sum = sum + redis.call('HGET', gate('sizes'), alive)
  end
  if sum > 0 then redis.call('HSET', gate('counts'), name, sum) else redis.call('HDEL', gate('counts'), name) end
end
let_in()
return {1, READY}
