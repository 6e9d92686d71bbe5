-- Start the next attempt of an admitted task; returns what a worker needs of its record, or nothing when it is
-- not to be run now.
local id, worker, lease, token, data = unpack(ARGV, 5)
local task = key('task', id)
local was = redis.call('HMGET', task, 'status', 'attempt', 'session', 'agent', 'trace', 'created_at', 'token', 'lane',
                       'queue_timeout', 'worker', 'birth', 'last', 'seconds')
if was[1] == 'running' and token ~= '' and was[7] == token and was[10] == worker then
  return redis.call('HGETALL', task) -- the reply to this very claim was lost
end
if was[1] ~= 'queued' or not was[3] then return false end
local is_damaged = not (was[2] and was[4] and was[6])
was[2], was[6] = was[2] or '0', was[6] or STAMP
local on_broker = redis.call(ALONE and 'ZREM' or 'ZSCORE', gate('sent'), id) -- so it is admitted
on_broker = on_broker and on_broker ~= 0
if on_broker and not ALONE then index(gate('sent'), id, false) end
if not on_broker and redis.call('SISMEMBER', gate('admitted', was[8]), id) == 0 then
  return false -- a message of an earlier attempt
end

local attempt = tostring(was[2] + 1)
local event_id = id .. ':' .. attempt .. ':started'
if was[9] and was[9] ~= '' then redis.call('ZREM', key('deadlines'), 'expired/' .. id) end
index(key('leases'), id, NOW + lease)
move(id, 'queued', 'running', was[6])
local seq = log(was[3], '0', event_id, 'task.started', id, was[4], attempt, was[5], data, nil,
                attempt == '1' and NOW - was[6])
local patch = {'status', 'running', 'attempt', attempt, 'worker', worker, 'started_at', STAMP,
               'token', token, 'last', event_id, 'last_seq', tostring(seq)}
if was[13] and attempt == '1' then
  patch[#patch + 1] = 'began_at'; patch[#patch + 1] = STAMP
  redis.call('ZADD', key('deadlines'), NOW + was[13] + 2000, 'budget_exceeded/' .. id) -- its runner is first
elseif not was[12] and not is_damaged then -- nothing has happened to it since its birth
  redis.call('HSET', task, unpack(patch))
  return {'birth', was[11], 'agent', was[4], 'created_at', was[6], unpack(patch, 1, 10)}
end
redis.call('HSET', task, 'n', '0', 'progress', '', unpack(patch))
return redis.call('HGETALL', task)
