-- Start the next attempt of an admitted task; returns the record, or nothing when it is not to be run now.
local id, worker, lease, token = unpack(ARGV, 5)
local task = key('task', id)
local was = redis.call('HMGET', task, 'status', 'attempt', 'session', 'agent', 'trace', 'created_at', 'token', 'lane',
                       'queue_timeout', 'worker')
if was[1] == 'running' and token ~= '' and was[7] == token and was[10] == worker then
  return redis.call('HGETALL', task) -- the reply to this very claim was lost
end
if was[1] ~= 'queued' then return false end
if redis.call('SISMEMBER', gate('admitted', was[8]), id) == 0 then return false end -- a message of an earlier attempt

local attempt = was[2] + 1
local event_id = id .. ':' .. attempt .. ':started'
redis.call('ZREM', gate('sent'), id)
if was[9] ~= '' then redis.call('ZREM', key('deadlines'), 'expired/' .. id) end
redis.call('ZADD', key('leases'), NOW + lease, id)
move(id, 'queued', 'running', was[6])
local seq = log(was[3], '0', event_id, 'task.started', id, was[4], attempt, was[5], cjson.encode({worker = worker}))
redis.call('HSET', task, 'status', 'running', 'attempt', attempt, 'n', 0, 'worker', worker, 'progress', '',
           'started_at', NOW, 'last', event_id, 'last_seq', seq, 'token', token)
return redis.call('HGETALL', task)
