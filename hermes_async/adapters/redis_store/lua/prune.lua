-- Forget tasks that ended, and silent sessions without tasks and listeners, more than ARGV[5] ms ago;
-- returns how many tasks.
local horizon, limit = NOW - ARGV[5], ARGV[6]
local old = redis.call('ZRANGEBYSCORE', key('ended'), '-inf', horizon, 'LIMIT', 0, limit)
for _, id in ipairs(old) do
  local is = redis.call('HMGET', key('task', id), 'session', 'agent', 'status', 'idem')
  if is[1] then
    redis.call('ZREM', key('tasks-of', is[1]), id)
    redis.call('ZREM', key('by-agent', is[2]), id)
    redis.call('ZREM', key('by-status', is[3]), id)
    if is[4] then redis.call('DEL', key('idem', is[1] .. ':' .. is[4])) end
  end
  redis.call('ZREM', key('tasks'), id)
  redis.call('ZREM', key('ended'), id)
  redis.call('DEL', key('task', id), key('children', id))
end
for _, session in ipairs(redis.call('ZRANGEBYSCORE', key('sessions'), '-inf', horizon, 'LIMIT', 0, limit)) do
  local newest = redis.call('XREVRANGE', key('events', session), '+', '-', 'COUNT', 1)[1]
  local at = newest and tonumber(newest[2][6]) or 0 -- its field `time`
  local heard = redis.call('PUBSUB', 'NUMSUB', key('nudge', session))[2] -- its listeners count on its seq
  if at > horizon then
    redis.call('ZADD', key('sessions'), at, session)
  elseif heard == 0 and redis.call('EXISTS', key('tasks-of', session)) == 0 then
    redis.call('DEL', key('session', session), key('events', session), key('inbox', session))
    redis.call('ZREM', key('sessions'), session)
  end
end
return #old
