-- Forget tasks that ended, and silent sessions without tasks and listeners, more than ARGV[5] ms ago, and rows
-- of callbacks that died more than ARGV[7] ms ago; returns how many tasks.
local horizon, limit, dead_horizon = NOW - ARGV[5], tonumber(ARGV[6]), NOW - ARGV[7]
local L = open_ledger()

-- What nobody has acknowledged goes with the records of its time; returns whether all of it is gone.
local function is_tidy(inbox)
  local entries = redis.call('XRANGE', inbox, '-', '+', 'COUNT', limit)
  for _, entry in ipairs(entries) do
    if tonumber(entry[2][6]) > horizon then return true end -- its field `time`
    redis.call('XDEL', inbox, entry[1])
  end
  return #entries < limit
end

for _, cid in ipairs(redis.call('ZRANGEBYSCORE', L.key('dead'), '-inf', dead_horizon, 'LIMIT', 0, limit)) do
  redis.call('ZREM', L.key('dead'), cid)
  L.forget(cid)
end
local old = redis.call('ZRANGEBYSCORE', key('ended'), '-inf', horizon, 'LIMIT', 0, limit)
for _, id in ipairs(old) do
  local is = redis.call('HMGET', key('task', id), 'session', 'agent', 'status', 'idem')
  if is[1] then
    redis.call('ZREM', key('tasks-of', is[1]), id)
    redis.call('ZREM', key('by-agent', is[2]), id)
    redis.call('ZREM', key('by-status', is[3]), id)
    if is[4] and redis.call('GET', is[4]) == id then redis.call('DEL', is[4]) end -- a later task may have it
    redis.call('ZADD', key('sessions'), 'XX', 'LT', horizon, is[1]) -- to be looked at below
  end
  redis.call('ZREM', key('ended'), id)
  redis.call('DEL', key('task', id), key('children', id), key('messages', id))
end
for _, session in ipairs(redis.call('ZRANGEBYSCORE', key('sessions'), '-inf', horizon, 'LIMIT', 0, limit)) do
  local newest = redis.call('XREVRANGE', key('events', session), '+', '-', 'COUNT', 1)[1]
  local at = newest and tonumber(newest[2][6]) or 0
  local heard = redis.call('PUBSUB', 'NUMSUB', key('nudge', session))[2] -- its listeners count on its seq
  local tidy = is_tidy(key('inbox', session))
  if at > horizon and tidy then
    redis.call('ZADD', key('sessions'), at, session)
  elseif at <= horizon and heard == 0 and redis.call('EXISTS', key('tasks-of', session)) == 0 then
    redis.call('DEL', key('session', session), key('events', session), key('inbox', session), key('recent', session))
    redis.call('ZREM', key('sessions'), session)
  elseif tidy then -- it is kept: it must not stand before others for ever
    redis.call('ZADD', key('sessions'), horizon, session)
  end
end
return #old
