-- Claim the first row of the line that has been ready for longest; returns {row, fence, seq, failures, log, record},
-- or nothing when no line is ready.
local lease, ready_set, lost = unpack(ARGV, 5)
local L = open_ledger()
local ready = L.key(ready_set)

local function next_row()
  local line = redis.call('ZRANGEBYSCORE', ready, '-inf', NOW, 'LIMIT', 0, 1)[1]
  if not line then return end
  local cid = redis.call('ZRANGE', L.rows(line), 0, 0)[1]
  if not cid or not redis.call('HGET', L.record(cid), 'session') then -- a server that lost some keys has it in pieces
    redis.call('HDEL', L.key('claims'), line)
    if cid then
      L.step_out(cid, line)
      redis.call('DEL', L.row(cid))
    else
      redis.call('ZREM', ready, line)
    end
    return next_row()
  end
  local ran_out = L.claimed(line)
  if ran_out then L.note(ran_out, lost) end
  if L.kind(cid) ~= 'on_progress' or redis.call('HEXISTS', L.record(cid), 'finished_at') == 0 then return line, cid end
  redis.call('HDEL', L.key('claims'), line) -- its task has ended, so its progress is no news
  L.withdraw(cid)
  return next_row()
end

local line, cid = next_row()
if not line then return false end
local record = L.record(cid)
local session = partition_of(cid) .. 'session:' .. redis.call('HGET', record, 'session')
local fence = redis.call('HINCRBY', session, 'fence', 1) -- it outlives the line
redis.call('HSET', L.key('claims'), line, fence .. '/' .. cid)
redis.call('ZADD', ready, NOW + lease, line)
redis.call('HDEL', L.row(cid), 'due')
local is = redis.call('HMGET', L.row(cid), 'seq', 'failures', 'log')
return {cid, fence, is[1], is[2] or '0', is[3] or '', redis.call('HGETALL', record)}
