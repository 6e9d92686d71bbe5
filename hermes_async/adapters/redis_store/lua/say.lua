-- Log a message to a task and keep it; returns {its seq, or 0 for an ended task}, or {-1, how many are unread},
-- {-2, how many are kept}.
local id, most_unread, most, most_recent, event_id, data = unpack(ARGV, 5, 10)
local task, messages = key('task', id), key('messages', id)
local was = redis.call('HMGET', task, 'status', 'attempt', 'session', 'agent', 'trace', 'unread')
if not was[1] then return {0} end
local recent = key('recent', was[3])
local seq = known(recent, event_id)
if seq then return {seq} end
if was[1] ~= 'queued' and was[1] ~= 'running' and was[1] ~= 'input_required' then return {0} end
local unread, kept = tonumber(was[6] or 0), redis.call('XLEN', messages)
if unread >= tonumber(most_unread) then return {-1, unread} end
if kept >= tonumber(most) then return {-2, kept} end

seq = log(was[3], '0', event_id, 'task.message', id, was[4], was[2], was[5], data)
know(recent, event_id, seq, most_recent)
redis.call('XADD', messages, seq .. '-0', 'id', event_id, 'type', 'task.message', 'time', NOW, 'task', id, 'agent', was[4],
           'attempt', was[2], 'trace', was[5], 'data', data)
redis.call('HSET', task, 'last', event_id, 'last_seq', seq, 'unread', unread + 1)
redis.call('PUBLISH', key('call', id), seq)
return {seq}
