-- Apply an event to its task and log it; returns its seq, or 0 when it is refused.
local id, maxlen, allowed, fence, ordinal, lapsed = unpack(ARGV, 1, 6)
local status, stamp, delay, inbox, event_id, type_, data = unpack(ARGV, 7, 13)
local task = key('task', id)
local was = redis.call('HMGET', task, 'status', 'attempt', 'n', 'session', 'agent', 'trace', 'last', 'last_seq',
                       'cancel_requested', 'created_at')
local now_status, attempt = was[1], was[2]
if not now_status then return 0 end

ordinal = tonumber(ordinal)
local repeated = was[7] == event_id or (ordinal > 0 and fence == attempt and ordinal <= tonumber(was[3]))
if repeated then return tonumber(was[8]) end
if not string.find(allowed, now_status .. ',', 1, true) then return 0 end
if fence ~= '' and fence ~= attempt then return 0 end
if type_ == 'task.cancel_requested' and was[9] == '1' then return 0 end
if lapsed == '1' and tonumber(redis.call('ZSCORE', key('leases'), id) or NOW + 1) > NOW then return 0 end

local seq = log(was[4], maxlen, inbox, event_id, type_, id, was[5], attempt, was[6], data)
local patch = {'last', event_id, 'last_seq', seq, unpack(ARGV, 14)}
if ordinal > 0 then patch[#patch + 1] = 'n'; patch[#patch + 1] = ordinal end
if stamp ~= '' then patch[#patch + 1] = stamp; patch[#patch + 1] = NOW end
if status ~= '' then patch[#patch + 1] = 'status'; patch[#patch + 1] = status end
redis.call('HSET', task, unpack(patch))
if status == '' then return seq end

move(id, now_status, status, was[10])
if status == 'queued' then
  redis.call('ZREM', key('leases'), id)
  send(id, was[9] == '1' and 0 or tonumber(delay)) -- who cancels does not wait for a retry
elseif stamp == 'finished_at' then
  redis.call('ZREM', key('leases'), id)
  redis.call('ZREM', key('due'), id)
  redis.call('HDEL', task, 'parcel_key', 'parcel')
  redis.call('ZADD', key('ended'), NOW, id)
end
return seq
