-- What every script begins with. KEYS[1] is the partition's prefix, `hermes:{p07}:`; every key below shares
-- its hash tag, so a script stays within one slot. The kinds of keys are listed in keys.py.
local PREFIX = KEYS[1]

local function key(kind, id)
  if id then return PREFIX .. kind .. ':' .. id end
  return PREFIX .. kind
end

local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Log an event: the next dense seq is its stream id, its inbox id, and what listeners are nudged with.
local function log(session, maxlen, inbox, id, type_, task, agent, attempt, trace, data)
  local seq = redis.call('HINCRBY', key('session', session), 'seq', 1)
  local fields = {'id', id, 'type', type_, 'time', NOW, 'task', task, 'agent', agent,
                  'attempt', attempt, 'trace', trace, 'data', data}
  redis.call('ZADD', key('sessions'), NOW, session)
  redis.call('XADD', key('events', session), 'MAXLEN', '~', maxlen, seq .. '-0', unpack(fields))
  if inbox == '1' then
    redis.call('XADD', key('inbox', session), seq .. '-0', unpack(fields))
  end
  redis.call('PUBLISH', key('nudge', session), seq)
  return seq
end

local function move(task_id, from, to, born)
  if from then redis.call('ZREM', key('by-status', from), task_id) end
  redis.call('ZADD', key('by-status', to), born, task_id)
end

-- Put a queued task on the broker now or in `delay` ms. Without a parcel, the janitor's caller publishes it.
local function send(task_id, delay)
  local parcel = redis.call('HMGET', key('task', task_id), 'parcel_key', 'parcel')
  if delay <= 0 and parcel[1] then
    redis.call('ZREM', key('due'), task_id)
    redis.call('XADD', parcel[1], '*', 'm', parcel[2])
    return true
  end
  redis.call('ZADD', key('due'), NOW + delay, task_id)
  return false
end
