-- Apply an event to its task and log it; returns {its seq, READY}, with what runs of the tasks that were asked to stop
-- because of it between the two, or {0, READY} when it is refused.
local id, allowed, fence, ordinal, lapsed = unpack(ARGV, 5, 9)
local status, stamp, delay, inbox, event_id, type_, data, due, what, stops = unpack(ARGV, 10, 19)
local task = key('task', id)
local was = redis.call('HMGET', task, 'status', 'attempt', 'n', 'session', 'agent', 'trace', 'last', 'last_seq',
                       'cancel_requested', 'created_at', 'has_deadline', 'lane', 'subagent', 'slots', 'agent_slots',
                       'wants', 'question_seq', 'started_at')
local now_status, attempt = was[1], was[2]
if not now_status then return {0, READY} end

ordinal = tonumber(ordinal)
local repeated = was[7] == event_id or (ordinal > 0 and fence == attempt and ordinal <= tonumber(was[3] or 0))
if repeated then return {tonumber(was[8]), READY} end
if not string.find(allowed, now_status .. ',', 1, true) then return {0, READY} end
if fence ~= '' and fence ~= attempt then return {0, READY} end
if type_ == 'task.cancel_requested' and was[9] == '1' then return {0, READY} end
if lapsed == '1' and tonumber(redis.call('ZSCORE', key('leases'), id) or NOW + 1) > NOW then return {0, READY} end

local stopped = {}
if stops ~= '' and now_status ~= 'queued' then -- the attempt has failed: what it has dispatched is wanted no more
  stopped = cascade(redis.call('LRANGE', key('children', id), 0, -1), true, '{"force":false}', stops)
end
local ends = status == 'queued' or stamp == 'finished_at'
local took = ends and now_status ~= 'queued' and NOW - was[18]
local seq = log(was[4], inbox, event_id, type_, id, was[5], attempt, was[6], data, what, took)
local patch = {'last', event_id, 'last_seq', tostring(seq), unpack(ARGV, 20)}
if ordinal > 0 then patch[#patch + 1] = 'n'; patch[#patch + 1] = ordinal end
if stamp ~= '' then patch[#patch + 1] = stamp; patch[#patch + 1] = STAMP end
if status ~= '' then patch[#patch + 1] = 'status'; patch[#patch + 1] = status end
if stamp == 'finished_at' then patch[#patch + 1] = 'parcel'; patch[#patch + 1] = '' end -- it is sent no more
if ends then -- before the event moves it: it gives back what it holds where it was
  leave(id, {status = now_status, lane = was[12], subagent = was[13], session = was[4], slots = was[14],
             agent = was[5], agent_slots = was[15]})
end
redis.call('HSET', task, unpack(patch))
if ends and now_status == 'input_required' then redis.call('PUBLISH', key('call', id), '0') end -- it need not wait
if status == '' then
  if was[16] and due ~= '' then open_ledger().file(id, was[4], was[16], due, seq, false) end
  return {seq, READY}
end

move(id, now_status, status, was[10])
if stamp == 'finished_at' then
  finish(id, now_status, was[11], was[17])
  if was[16] then open_ledger().file(id, was[4], was[16], due, seq, true) end
elseif status == 'queued' then
  index(key('leases'), id, false)
  local agent = redis.call('HGET', task, 'agent')
  if agent ~= was[5] then
    redis.call('ZREM', key('by-agent', was[5]), id)
    redis.call('ZADD', key('by-agent', agent), was[10], id)
  end
  if tonumber(delay) > 0 and was[9] ~= '1' then -- who cancels does not wait for a retry
    redis.call('ZADD', key('due'), NOW + delay, id)
  else
    enter(id, facts(id))
  end
end
return {seq, stopped, READY}
