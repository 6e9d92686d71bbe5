-- Write a new task, once: {1, created_at, READY}, {0, id of the task that stands, digest of its input, its
-- session}, or what
-- refuses it: {2, how many wait}, {3, status of its parent task}, {4, what the tree of each of its budgets, the
-- arguments from the 28th on, has consumed}.
local id, session, agent, trace, birth, digest = unpack(ARGV, 5, 10)
local idem, idem_ttl, parcel_key, parcel, data = unpack(ARGV, 11, 15)
local lane, subagent, slots, agent_slots, priority = unpack(ARGV, 16, 20)
local queue_timeout, total_timeout, max_queued, parent, parent_attempt, wants, seconds = unpack(ARGV, 21, 27)
local task = key('task', id)

local standing = id
if idem ~= '' then standing = redis.call('GET', idem) or id end
local known = redis.call('HMGET', partition_of(standing) .. 'task:' .. standing, 'created_at', 'digest', 'session')
if known[1] then return {0, standing, known[2] or '', known[3]} end

if max_queued ~= '0' then
  local waiting = (redis.call('HGET', gate('counts'), 'waiting') or 0) + redis.call('ZCARD', gate('sent'))
  for _ in pairs(not ALONE and INDEXED[gate('sent')] or {}) do waiting = waiting + 1 end -- they are not written yet
  if waiting >= tonumber(max_queued) then return {2, waiting} end
end
if parent ~= '' then
  local is = redis.call('HMGET', key('task', parent), 'status', 'attempt', 'cancel_requested')
  if is[3] == '1' then return {3, 'to be cancelled'} end
  local runs = is[1] == 'running' or is[1] == 'input_required'
  if not runs or is[2] ~= parent_attempt then return {3, 'not running this attempt any more'} end
  if ARGV[28] and refuses(28, 1, 0) then return {4, trees(28)} end -- only then there are the accounts
  redis.call('RPUSH', key('children', parent), id)
end

local seq = log(session, '0', id .. ':0:queued', 'task.queued', id, agent, 0, trace, data)
local record = {'birth', birth, 'session', session, 'agent', agent, 'trace', trace, 'status', 'queued', 'attempt', '0',
                'created_at', STAMP, 'lane', lane, 'subagent', subagent, 'priority', priority, 'born', tostring(seq)}
local function note(field, value)
  if value ~= '' then record[#record + 1] = field; record[#record + 1] = value end
end
note('slots', slots)
note('agent_slots', agent_slots)
note('queue_timeout', queue_timeout)
note('has_deadline', (queue_timeout ~= '' or total_timeout ~= '' or seconds ~= '') and '1' or '')
note('parcel_key', parcel_key)
note('parcel', parcel)
note('wants', wants)
note('seconds', seconds)
if idem ~= '' then
  redis.call('SET', idem, id, 'PX', idem_ttl)
  note('idem', idem)
  note('digest', digest)
end
redis.call('HSET', task, unpack(record))
index(key('tasks-of', session), id, STAMP)
index(key('by-agent', agent), id, STAMP)
if seq == 1 then redis.call('ZADD', key('sessions'), STAMP, session) end
move(id, nil, 'queued', STAMP)
if total_timeout ~= '' then
  redis.call('ZADD', key('deadlines'), NOW + total_timeout + 2000, 'total_timeout/' .. id) -- its runner is first
end
enter(id, {lane = lane, session = session, subagent = subagent, slots = slots, agent = agent,
           agent_slots = agent_slots, priority = priority, born = seq, status = 'queued',
           queue_timeout = queue_timeout, parcel_key = parcel_key ~= '' and parcel_key, parcel = parcel})
return {1, NOW, READY}
