-- Write a new task, once: {1, created_at} or {0, id of the task that stands, digest of its input}.
local id, maxlen, session, agent, trace, birth, digest = unpack(ARGV, 1, 7)
local idem, idem_ttl, parcel_key, parcel, grace, data = unpack(ARGV, 8, 13)
local task = key('task', id)

local standing = id
if idem ~= '' then standing = redis.call('GET', key('idem', session .. ':' .. idem)) or id end
local known = redis.call('HMGET', key('task', standing), 'digest', 'created_at')
if known[1] then return {0, standing, known[1]} end

redis.call('HSET', task, 'birth', birth, 'session', session, 'agent', agent, 'trace', trace, 'digest', digest,
           'status', 'queued', 'attempt', 0, 'n', 0, 'created_at', NOW)
if idem ~= '' then
  redis.call('SET', key('idem', session .. ':' .. idem), id, 'PX', idem_ttl)
  redis.call('HSET', task, 'idem', idem)
end
redis.call('ZADD', key('tasks'), NOW, id)
redis.call('ZADD', key('tasks-of', session), NOW, id)
redis.call('ZADD', key('by-agent', agent), NOW, id)
move(id, nil, 'queued', NOW)
local seq = log(session, maxlen, '0', id .. ':0:queued', 'task.queued', id, agent, 0, trace, data)
redis.call('HSET', task, 'last', id .. ':0:queued', 'last_seq', seq)
if parcel_key ~= '' then
  redis.call('HSET', task, 'parcel_key', parcel_key, 'parcel', parcel)
  send(id, 0)
else
  send(id, tonumber(grace))
end
return {1, NOW}
